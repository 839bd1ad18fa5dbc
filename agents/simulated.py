"""A model of any backend as the simulated search engine (``ovd_envs.search.simulated``)."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence

from agents.protocol import Backend, Request
from ovd_envs.errors import OVDError
from ovd_envs.search.simulated import SimulatedEngine
from ovd_envs.stable import stable_hash


class Writer:
    """The function from prompts to texts that a simulated engine asks for.

    Random numbers hang on the prompt alone, so the same call gives the same texts at any time. (In
    a batch of another size a model may round differently, mostly in bfloat16.) Calls from several
    threads wait for each other: a backend need not be thread-safe. Raises ``OVDError`` for numbers
    out of range, and for a prompt that leaves no room for ``max_tokens`` in the model's context.
    """

    def __init__(
        self, backend: Backend, *, temperature: float = 0.8, max_tokens: int = 400, seed: int = 0
    ) -> None:
        if not temperature >= 0:
            raise OVDError(f"temperature: expected 0 (greedy) or more, got {temperature!r}")
        if max_tokens < 1:
            raise OVDError(f"max_tokens: expected at least 1, got {max_tokens!r}")
        self._backend = backend
        self._temperature = temperature
        self._max_tokens = max_tokens
        self._seed = seed
        self._lock = threading.Lock()

    def __call__(self, prompts: Sequence[str]) -> list[str]:
        """One text for each prompt, in order."""
        with self._lock:
            requests = [
                Request(
                    self._backend.dialect.open(prompt),
                    self._max_tokens,
                    self._temperature,
                    key=(self._seed, stable_hash(prompt)),
                )
                for prompt in prompts
            ]
            return [completion.text for completion in self._backend.generate(requests)]


def simulated_engine(
    model: str,
    *,
    backend: str = "transformers",
    temperature: float = 0.8,
    max_tokens: int = 400,
    noise_start: float = 0.0,
    noise_end: float = 0.5,
    total_steps: int = 200,
    seed: int = 0,
    words: int = 40,
) -> SimulatedEngine:
    """The search engine "simulated": ``model`` (alias, folder or hub name) plays it.

    The other options are those of ``Writer`` and ``SimulatedEngine``. Raises ``OVDError`` where
    the model cannot be loaded.
    """
    writer = Writer(
        _load(model, backend), temperature=temperature, max_tokens=max_tokens, seed=seed
    )
    return SimulatedEngine(
        writer,
        noise_start=noise_start,
        noise_end=noise_end,
        total_steps=total_steps,
        seed=seed,
        words=words,
        name=f"simulated:{model}",
    )


@functools.cache
def _load(model: str, backend: str) -> Backend:
    """The model, once in this process: each environment of a rollout may make an engine of it."""
    from agents import load_backend

    return load_backend(model, backend=backend)
