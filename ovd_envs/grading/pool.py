"""Worker processes for answers that only a computer algebra system can compare.

Sympy can run for ever on a short answer, cannot be interrupted in a thread, and can take all the
memory there is. So it runs in processes of its own that are killed at the deadline.
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

from ovd_envs.errors import OVDError, TaskError

#: Seconds for a worker to start (imports included) on a machine that is busy.
_START_LIMIT = 120.0

#: Seconds between a request and the worker's word that it has begun; it does so at once.
_BEGIN_LIMIT = 30.0

_ROOT = str(Path(__file__).resolve().parents[2])
_CODE = (
    f"import sys; sys.path.insert(0, {_ROOT!r}); from ovd_envs.grading.worker import serve; serve()"
)


class _Gone(Exception):
    """The worker has ended, or does not answer in time."""

    def __init__(self, phase: str) -> None:
        super().__init__(phase)
        self.phase = phase


class _Worker:
    """One child process and the lines between it and us."""

    def __init__(self) -> None:
        # Not multiprocessing: "fork" copies the threads of torch half, and "spawn" runs the
        # user's main script again.
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CODE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        self._in = cast(BinaryIO, self._process.stdin)
        self._out = cast(BinaryIO, self._process.stdout)
        self._buffer = b""
        try:
            self._wait_for("ready", "start", _START_LIMIT)
        except _Gone as error:
            self.kill()
            raise OVDError("math grader: its worker process did not start") from error

    def compare(self, request: Mapping[str, Any], deadline: float) -> dict[str, Any]:
        """The worker's last word on a pair. Raises ``_Gone`` with the phase that was under way."""
        try:
            self._in.write(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise _Gone("idle") from error
        self._wait_for("start", "idle", _BEGIN_LIMIT)
        end = time.monotonic() + deadline
        message = self._line("gold", end)
        if message["phase"] == "done":
            return message
        return self._line("answer", end)

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._in.close()
        self._out.close()
        self._process.wait()

    def _wait_for(self, phase: str, now: str, limit: float) -> None:
        message = self._line(now, time.monotonic() + limit)
        if message.get("phase") != phase:
            raise _Gone(now)

    def _line(self, phase: str, end: float) -> dict[str, Any]:
        """The next message, until the monotonic time ``end``."""
        while b"\n" not in self._buffer:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._out], [], [], left)[0]:
                raise _Gone(phase)
            data = os.read(self._out.fileno(), 65536)
            if not data:
                raise _Gone(phase)
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return cast(dict[str, Any], json.loads(line))


class WorkerPool:
    """Up to ``size`` workers, started as they are needed; safe to use from many threads.

    A pair's deadline runs from the moment at which a worker takes it up: neither the start of a
    worker nor the time in the queue counts.
    """

    def __init__(self, size: int | None = None) -> None:
        self.size = size or max(1, min(4, os.cpu_count() or 1))
        self._free = threading.Semaphore(self.size)
        self._idle: list[_Worker] = []
        self._lock = threading.Lock()

    def compare(
        self, gold: str, answer: str, rules: Mapping[str, Any], *, deadline: float
    ) -> str:
        """ "right", "wrong", or "timeout" where ``answer`` used up its time or memory.

        Raises ``TaskError`` where the gold answer did so.
        """
        request = {"gold": gold, "answer": answer, "rules": dict(rules)}
        with self._free:
            worker = self._take()
            try:
                message = worker.compare(request, deadline)
            except _Gone as error:
                worker.kill()
                if error.phase == "gold":
                    raise TaskError(
                        f"gold answer {gold[:80]!r}: cannot be read within {deadline:g} s"
                    ) from error
                return "timeout"
            except BaseException:
                # Interrupted between question and answer: the next answer would be this one's.
                worker.kill()
                raise
            with self._lock:
                self._idle.append(worker)
        return "right" if message["correct"] else "wrong"

    def close(self) -> None:
        """End the idle workers; the pool starts new ones where it is used again."""
        with self._lock:
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.kill()

    def _take(self) -> _Worker:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return _Worker()


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
