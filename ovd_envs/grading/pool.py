"""Worker processes for what may never come to an end, killed at the deadline.

Sympy can run for ever on a short answer, cannot be interrupted in a thread, and can take all the
memory there is; so can a function of the user's.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from ovd_envs.errors import OVDError

#: Seconds for a worker to start, or to load what a request needs, on a machine that is busy.
_START_LIMIT = 120.0

_ROOT = str(Path(__file__).resolve().parents[2])
_CODE = f"import sys; sys.path.insert(0, {_ROOT!r}); from {{}} import serve; serve()"

#: Compares answers by algebra.
GRADER = "ovd_envs.grading.worker"


class Expired(Exception):
    """A request used up its time or memory; ``phase`` ("gold" or "answer") tells on what.

    ``ended``: the process was gone before its time was up; ``begun``: it had taken the request up.
    """

    def __init__(self, phase: str, *, ended: bool = False, begun: bool = True) -> None:
        super().__init__(phase)
        self.phase = phase
        self.ended = ended
        self.begun = begun


class _Worker:
    """One child process, which runs ``serve`` of ``module``, and the lines between it and us."""

    def __init__(self, module: str, *, quiet: bool) -> None:
        # Not multiprocessing: "fork" copies the threads of torch half, and "spawn" runs the
        # user's main script again. -P: no module of the current folder stands in for Python's.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _CODE.format(module)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if quiet else None,
            bufsize=0,
        )
        self._in = cast(BinaryIO, self._process.stdin)
        self._out = cast(BinaryIO, self._process.stdout)
        self._poll = select.poll()
        self._poll.register(self._out, select.POLLIN)
        self._buffer = b""
        try:
            if self._next(time.monotonic() + _START_LIMIT)["phase"] != "ready":
                raise EOFError
        except (EOFError, TimeoutError) as error:
            self.kill()
            raise OVDError(f"{module}: its worker process did not start") from error
        except BaseException:
            self.kill()
            raise

    def ask(self, request: Mapping[str, Any], deadline: float) -> dict[str, Any]:
        """The worker's last word on a request. Raises ``Expired``."""
        phase, begun = "gold", False
        end = time.monotonic() + _START_LIMIT
        try:
            self._in.write(json.dumps(request).encode() + b"\n")
            while True:
                message = self._next(end)
                if message["phase"] == "start":
                    end, begun = time.monotonic() + deadline, True
                elif message["phase"] == "done":
                    return message
                else:
                    phase = message["phase"]
        except (EOFError, TimeoutError, OSError) as error:
            ended = not isinstance(error, TimeoutError)
            raise Expired(phase, ended=ended, begun=begun) from error

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._in.close()
        self._out.close()
        self._process.wait()

    def _next(self, end: float) -> dict[str, Any]:
        """The next message, waited for until the monotonic time ``end``."""
        while b"\n" not in self._buffer:
            left = end - time.monotonic()
            if left <= 0 or not self._poll.poll(left * 1000):
                raise TimeoutError
            data = os.read(self._out.fileno(), 65536)
            if not data:
                raise EOFError
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return cast(dict[str, Any], json.loads(line))


class WorkerPool:
    """Up to ``size`` workers, started as they are needed; safe to use from many threads.

    They run ``serve`` of ``module``; what they write to standard error is seen unless ``quiet``.
    """

    def __init__(
        self, size: int | None = None, *, module: str = GRADER, quiet: bool = True
    ) -> None:
        self._module, self._quiet = module, quiet
        self.size = size or max(1, min(4, os.cpu_count() or 1))
        self._free = threading.Semaphore(self.size)
        self._idle: list[_Worker] = []
        self._lock = threading.Lock()

    def ask(self, request: Mapping[str, Any], *, deadline: float) -> dict[str, Any]:
        """The reply to a request (see the worker's module).

        ``deadline`` (seconds) runs from the moment at which a worker takes the request up: neither
        the start of a worker nor the time in the queue counts. Raises ``Expired`` where it, or the
        memory of the worker, was used up.
        """
        with self._free:
            while True:
                worker, idle = self._take()
                try:
                    message = worker.ask(request, deadline)
                except BaseException as error:
                    # Also where we were interrupted: its next word would answer this request.
                    worker.kill()
                    if idle and isinstance(error, Expired) and not error.begun:
                        continue  # the system killed it while it had nothing to do
                    raise
                with self._lock:
                    self._idle.append(worker)
                return message

    def close(self) -> None:
        """End the idle workers; the pool starts new ones where it is used again."""
        with self._lock:
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.kill()

    def _take(self) -> tuple[_Worker, bool]:
        """A worker, and whether it was there already."""
        with self._lock:
            if self._idle:
                return self._idle.pop(), True
        return _Worker(self._module, quiet=self._quiet), False


_pool: WorkerPool | None = None
_pool_lock = threading.Lock()


def shared_pool() -> WorkerPool:
    """The pool of this process."""
    global _pool
    with _pool_lock:
        if _pool is None:
            _pool = WorkerPool()
        return _pool


def _close() -> None:
    if _pool is not None:
        _pool.close()


def _forget() -> None:
    # In a forked child: the workers belong to the parent, whose pipes must not be written to.
    global _pool, _pool_lock
    _pool, _pool_lock = None, threading.Lock()


atexit.register(_close)
os.register_at_fork(after_in_child=_forget)
