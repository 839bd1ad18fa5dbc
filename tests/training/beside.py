"""A backend that samples beside the model that learns, as vLLM does, on a copy of a tiny one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import agents
from agents.protocol import Completion, Request
from agents.transformers_backend import TransformersBackend

#: Seconds that a test waits for what must happen; only a fault uses them up.
PATIENCE = 20.0


class Beside(TransformersBackend):
    """Takes new weights by copying them; fails where two threads use it at once.

    ``hears`` is called with the name of the thread and the requests before they are answered.
    """

    hears: Callable[[str, Sequence[Request]], None]
    #: What was done: ("follow", version) or ("sample", step).
    done: list[tuple[str, int]]
    _use: threading.Lock

    def follow(self, model: Any, version: int) -> None:
        assert self._use.acquire(blocking=False), "new weights while something is sampled"
        try:
            self.done.append(("follow", version))
            self.model.load_state_dict(model.state_dict())
            self.version = version
            self._sessions.clear()
        finally:
            self._use.release()

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        assert self._use.acquire(blocking=False), "two threads sample at once"
        try:
            self.done += [("sample", step) for step in {request.key[1] for request in requests}]
            self.hears(threading.current_thread().name, requests)
            return super().generate(requests)
        finally:
            self._use.release()


class OneByOne(Beside):
    """As ``Beside``, with ``submit``: one thread samples, ``hears`` is called in another."""

    capabilities = replace(TransformersBackend.capabilities, submit=True)

    def submit(self, request: Request) -> Future[Completion]:
        def answer() -> Completion:
            self.hears(threading.current_thread().name, [request])
            with self._use:
                return TransformersBackend.generate(self, [request])[0]

        return self.pool.submit(answer)

    pool: ThreadPoolExecutor


class _Next:
    """How the backends are made from now on, and those that were."""

    hears: Callable[[str, Sequence[Request]], None]
    kind: type[Beside]
    made: list[Beside]


def register(
    hears: Callable[[str, Sequence[Request]], None] = lambda *_: None,
    kind: type[Beside] = Beside,
) -> list[Beside]:
    """From now on the backend "beside" is of ``kind``; the list of those that will be made."""
    _Next.hears, _Next.kind, _Next.made = staticmethod(hears), kind, []
    agents.backends.register("beside", _load, "for tests")
    return _Next.made


def _load(
    name: str,
    *,
    dtype: str = "auto",
    device: str | None = None,
    batch_size: int = 64,
    dialect: str = "chat",
) -> Beside:
    backend = _Next.kind.load(
        name, dtype=dtype, device=device, batch_size=batch_size, dialect=dialect
    )
    assert isinstance(backend, Beside)
    backend.hears, backend.done, backend._use = _Next.hears, [], threading.Lock()
    if isinstance(backend, OneByOne):
        backend.pool = ThreadPoolExecutor(16)
    _Next.made.append(backend)
    return backend


_load.capabilities = Beside.capabilities
