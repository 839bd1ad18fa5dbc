"""``ovd`` in processes of its own that start at once, to be killed, starved and interrupted.

A server process imports what training needs (seconds) and computes nothing; each ``ovd`` is a
fork of it, a process like any other from there on.

    {"argv": [...], "out": FILE, "err": FILE, ...}  ->  {"pid": 1}
    {"wait": 1}                                     ->  {"code": 0}     (a signal: its negative)
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Process:
    """One ``ovd`` that was started."""

    def __init__(self, server: Server, pid: int, out: Path, err: Path) -> None:
        self.server, self.pid, self._out, self._err = server, pid, out, err

    def signal(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """The exit code; -9 where it was killed."""
        return int(self.server.ask({"wait": self.pid})["code"])

    def wait_for(self, ready: Callable[[], bool], seconds: float = 120.0) -> bool:
        """Wait until ``ready``; false where the process ended first."""
        end = time.monotonic() + seconds
        while not ready():
            if not self.alive():
                return ready()
            if time.monotonic() > end:
                raise TimeoutError(f"not ready after {seconds} s: {self.err}")
            time.sleep(0.002)
        return True

    def alive(self) -> bool:
        """Whether it still runs (a dead child that nobody waited for does not)."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    @property
    def out(self) -> str:
        return self._out.read_text(errors="replace")

    @property
    def err(self) -> str:
        return self._err.read_text(errors="replace")


class Server:
    """The process that the others are forks of."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "HF_HUB_OFFLINE": "1",
                "OMP_NUM_THREADS": "1",
                "COLUMNS": "100",
                "TERM": "xterm-256color",
            },
        )

        self.ask({"ready": None})

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "the server has died"
        return dict(json.loads(answer))

    def start(
        self,
        *arguments: object,
        terminal: str | None = None,
        file_size: int | None = None,
        die_at: int | None = None,
        cwd: Path | None = None,
    ) -> Process:
        """Start ``ovd`` with ``arguments``.

        ``terminal`` is a terminal device for its output. ``file_size`` is the largest file in
        bytes that it can write: a disk that is full. ``die_at``: it kills itself before the file
        operation of this number (from 1) that gives a file or folder its name, or removes one.
        """
        self.count += 1
        out, err = (self.folder / f"{self.count}.{name}" for name in ("out", "err"))
        answer = self.ask(
            {
                "argv": [str(argument) for argument in arguments],
                "out": terminal or str(out),
                "err": terminal or str(err),
                "file_size": file_size,
                "die_at": die_at,
                "cwd": str(cwd or self.folder),
            }
        )
        return Process(self, int(answer["pid"]), out, err)

    def run(self, *arguments: object, **options: Any) -> tuple[int, Process]:
        """Start ``ovd`` and wait for its end."""
        process = self.start(*arguments, **options)
        return process.wait(), process

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def _die_at(number: int) -> None:
    """Let this process kill itself before file operation ``number``."""
    import shutil

    count = 0

    def counting(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return wrapper

    for module, name in (
        (os, "replace"),
        (os, "rename"),
        (shutil, "rmtree"),
    ):
        setattr(module, name, counting(getattr(module, name)))


def _child(request: dict[str, Any]) -> None:
    for name, target in (("out", 1), ("err", 2)):
        descriptor = os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_NOCTTY, 0o600)
        os.dup2(descriptor, target)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(request["cwd"])
    # A process in the background may have been given SIGINT as ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if request["file_size"] is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_size"], hard))
    if request["die_at"] is not None:
        _die_at(request["die_at"])
    sys.argv = ["ovd", *request["argv"]]
    import ovd

    ovd.main()


def _serve(requests: Sequence[bytes] | Any) -> None:
    answers = os.fdopen(os.dup(1), "wb")
    for line in requests:
        request = json.loads(line)
        if "ready" in request:
            answer = {"ready": True}
        elif "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            answer = {"code": os.waitstatus_to_exitcode(status)}
        else:
            pid = os.fork()
            if not pid:
                answers.close()
                code = 1
                try:
                    _child(request)
                except SystemExit as stop:
                    code = stop.code if isinstance(stop.code, int) else 1
                except BaseException:  # noqa: BLE001 - as Python ends: a traceback, code 1
                    traceback.print_exc()
                finally:
                    sys.stdout.flush()
                    sys.stderr.flush()
                    os._exit(code)
            answer = {"pid": pid}
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    import peft  # noqa: F401
    import rich.live  # noqa: F401
    import transformers.models.llama.modeling_llama  # noqa: F401

    import teachers.registry  # noqa: F401
    import training.commands
    import training.display
    import training.trainer  # noqa: F401

    _serve(sys.stdin.buffer)
