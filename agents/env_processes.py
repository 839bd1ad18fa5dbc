"""Environments in processes of their own: for those that are slow, or not safe in threads."""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import signal
import threading
import traceback
from multiprocessing.connection import Connection
from typing import Any, cast

import gymnasium

from agents.stepping import EnvFactory, close
from ovd_envs.errors import OVDError

# "fork" would copy the threads of torch and of the rollout half.
_CONTEXT = multiprocessing.get_context("spawn")

#: Seconds in which a process must end by itself.
_GRACE = 10.0


class ProcessEnded(Exception):
    """The process of an environment is gone, and what was in it."""


class EnvError(Exception):
    """An environment raised in its process; the text is the traceback there."""


class EnvProcesses:
    """Up to ``count`` processes; each holds several environments and serves one at a time.

    A process is started when it is needed, and again where it has died. Safe to use from several
    threads.

    Raises:
        OVDError: where ``factory`` cannot be sent to another process.
    """

    def __init__(self, factory: EnvFactory, count: int) -> None:
        try:
            self._factory = pickle.dumps(factory)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise OVDError(
                "workers: expected an environment that another process can make (a registered "
                f"name, or a function at the top of a module), got {factory!r} ({error})"
            ) from error
        self._count = count
        self._lock = threading.Lock()
        self._running: list[_Process] = []

    def make(self) -> RemoteEnv:
        """A new environment, in the process that holds the fewest.

        Raises ``OVDError`` where a process does not start, ``ProcessEnded`` where making the
        environment is what ends it, and whatever else making it raises, as ``EnvError``.
        """
        while True:
            with self._lock:
                self._running = [process for process in self._running if not process.ended]
                if len(self._running) < self._count:
                    self._running.append(_Process(self._factory))
                process = min(self._running, key=lambda process: len(process.held))
                number = process.made = process.made + 1
                process.held.add(number)
            used = process.used
            try:
                return RemoteEnv(process, number, process.ask(number, "make"))
            except ProcessEnded:
                if not used:
                    raise
                # It had died before: another is asked.

    def close(self) -> None:
        """End the processes; those that do not listen are killed."""
        for process in self._running:
            process.stop()


class RemoteEnv(gymnasium.Env[str, str]):
    """An environment in another process: ``reset``, ``step`` and ``close`` happen there."""

    def __init__(
        self, process: _Process, number: int, facts: tuple[tuple[str, ...], tuple[str, ...]]
    ) -> None:
        self._process = process
        self._number = number
        self.reset_options, self.stop_strings = facts
        self.system: str | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """As the environment's own."""
        result, self.system = self._process.ask(self._number, "reset", seed, options)
        return cast(tuple[str, dict[str, Any]], result)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """As the environment's own."""
        result = self._process.ask(self._number, "step", action)
        return cast(tuple[str, float, bool, bool, dict[str, Any]], result)

    def close(self) -> None:
        """Close the environment there."""
        self._process.held.discard(self._number)
        self._process.ask(self._number, "close")


class _Process:
    """One child process, and the line to it."""

    def __init__(self, factory: bytes) -> None:
        self.ended = False
        self.used = False
        self.made = 0
        self.held: set[int] = set()
        self._lock = threading.Lock()
        self._line, theirs = _CONTEXT.Pipe()
        # Daemonic: it does not outlive this process, whatever happens here.
        self._process = _CONTEXT.Process(
            target=_serve, args=(theirs, factory), name="environments", daemon=True
        )
        # Ctrl-C reaches every process of a terminal; this one decides when the others end. The
        # child inherits what is blocked here, so it is safe from its first moment on.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()

    def ask(self, number: int, method: str, *arguments: Any) -> Any:
        """What the child's environment ``number`` answers; one call at a time."""
        message = pickle.dumps((number, method, arguments))
        with self._lock:
            if self.ended:
                raise ProcessEnded(self._epitaph())
            try:
                if not self.used:
                    self._line.recv()
                    self.used = True
                self._line.send_bytes(message)
                kind, value = self._line.recv()
            except (EOFError, OSError):
                self.ended = True
                if not self.used:
                    raise OVDError(
                        f"workers: {self._epitaph()} before it could start; a script that starts "
                        'processes needs `if __name__ == "__main__":`'
                    ) from None
                raise ProcessEnded(self._epitaph()) from None
            except BaseException:  # interrupted: its next word would answer this call
                self.ended = True
                self._process.kill()
                raise
        if kind == "refused":
            raise OVDError(value)
        if kind == "raised":
            raise EnvError(f"in the environment's process\n\n{value}")
        return value

    def _epitaph(self) -> str:
        self._process.join(_GRACE)
        code = self._process.exitcode
        how = f"with exit code {code}"
        if code is not None and code < 0:
            how = f"by {signal.Signals(-code).name}"
        return f"the environment's process {self._process.pid} was ended {how}"

    def stop(self) -> None:
        """End the process: it closes what it holds, or is killed."""
        # Where a call is still under way (Ctrl-C twice), nobody waits for it.
        if self._lock.acquire(timeout=0 if self.ended else _GRACE):
            with contextlib.suppress(OSError):
                self._line.close()
            self._lock.release()
            self._process.join(_GRACE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _serve(line: Connection, factory: bytes) -> None:
    """The child: answer (number, method, arguments) until the line is closed.

    An answer is ("value", ...), ("refused", the message of an ``OVDError``) or ("raised", a
    traceback). The first word is "ready".
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    make: EnvFactory = pickle.loads(factory)  # noqa: S301 - from the parent
    worlds: dict[int, gymnasium.Env[str, str]] = {}

    def answer(number: int, method: str, arguments: tuple[Any, ...]) -> Any:
        if method == "make":
            worlds[number] = make()
            world = worlds[number].unwrapped
            return [tuple(getattr(world, name, ())) for name in ("reset_options", "stop_strings")]
        if method == "close":
            return worlds.pop(number).close()
        if method == "reset":
            seed, options = arguments
            result = worlds[number].reset(seed=seed, options=options)
            return result, getattr(worlds[number].unwrapped, "system", None)
        return worlds[number].step(*arguments)

    line.send("ready")
    with contextlib.suppress(EOFError, OSError):  # the parent is done with us, or is gone
        while True:
            call = line.recv()
            try:
                message = pickle.dumps(("value", answer(*call)))
            except OVDError as error:
                message = pickle.dumps(("refused", str(error)))
            except Exception:  # noqa: BLE001 - somebody's environment can fail in any way
                message = pickle.dumps(("raised", traceback.format_exc()))
            line.send_bytes(message)
    for world in worlds.values():
        close(world)
