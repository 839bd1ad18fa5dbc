"""A program on a real pseudo-terminal, and what a person would see of it."""

from __future__ import annotations

import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Sequence
from fcntl import ioctl
from pathlib import Path
from typing import Any

import pyte

ROOT = Path(__file__).resolve().parents[1]

#: The terminal becomes the program's own, so that Ctrl-C reaches it.
_START = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"


class _Screen(pyte.HistoryScreen):
    """With the alternate screen, which pyte does not know."""

    saved: Any = None

    def set_mode(self, *modes: int, **options: Any) -> None:
        if options.get("private") and 1049 in modes and self.saved is None:
            self.saved = (
                {row: line.copy() for row, line in self.buffer.items()},
                (self.cursor.x, self.cursor.y),
            )
            self.erase_in_display(2)
            self.cursor_position()
        super().set_mode(*modes, **options)

    def reset_mode(self, *modes: int, **options: Any) -> None:
        if options.get("private") and 1049 in modes and self.saved is not None:
            lines, (x, y) = self.saved
            self.saved = None
            self.erase_in_display(2)
            for row, line in lines.items():
                self.buffer[row].update(line)
            self.cursor_position(y + 1, x + 1)
        super().reset_mode(*modes, **options)


class Terminal:
    """Runs Python ``code`` on a terminal of this size. Use it as a context manager."""

    def __init__(self, code: str, *, columns: int = 80, rows: int = 24) -> None:
        self.screen = _Screen(columns, rows, history=1000)
        self._stream = pyte.ByteStream(self.screen)
        self._end, child = pty.openpty()
        self._size(columns, rows)
        self.raw = b""
        hidden = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START + code],
            stdin=child,
            stdout=child,
            stderr=child,
            cwd=ROOT,
            env={
                **{k: v for k, v in os.environ.items() if k not in hidden},
                "TERM": "xterm-256color",
                "PYTHONUTF8": "1",
                "LC_ALL": "C.UTF-8",
            },
            start_new_session=True,
        )
        os.close(child)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self._end)

    def _size(self, columns: int, rows: int) -> None:
        ioctl(self._end, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def resize(self, columns: int, rows: int) -> None:
        """As when a person drags the corner of the window."""
        self.screen.resize(rows, columns)
        self._size(columns, rows)
        os.killpg(self.process.pid, signal.SIGWINCH)

    def type(self, text: str) -> None:
        """Press these keys: "\\r" is Enter, "\\x03" Ctrl-C."""
        os.write(self._end, text.encode())

    def read(self, seconds: float) -> bool:
        """Take in what is written within these seconds; False where it has ended."""
        if not select.select([self._end], [], [], seconds)[0]:
            return True
        try:
            written = os.read(self._end, 65536)
        except OSError:  # the program has closed its end
            return False
        self.raw += written
        self._stream.feed(written)
        return bool(written)

    def wait_until(self, condition: Callable[[], bool], seconds: float = 30) -> None:
        """Take in what is written until ``condition`` holds."""
        until = time.monotonic() + seconds
        while not condition():
            alive = self.read(0.1)
            assert condition() or (alive and time.monotonic() < until), (
                "not on the screen:\n" + "\n".join(self.lines)
            )

    def wait_for(self, text: str, times: int = 1) -> list[str]:
        """The screen as soon as ``text`` has been shown so often, scrolled away or not."""
        self.wait_until(lambda: "\n".join(self.everything).count(text) >= times)
        return self.lines

    def wait_for_end(self, seconds: float = 30) -> int:
        """Read to the end; the exit code."""
        until = time.monotonic() + seconds
        while self.read(0.1):
            assert time.monotonic() < until, "\n".join(self.lines)
        return self.process.wait(until - time.monotonic())

    @property
    def lines(self) -> list[str]:
        """What is on the screen, without blanks at the ends of lines."""
        return [line.rstrip() for line in self.screen.display]

    @property
    def everything(self) -> list[str]:
        """The lines of the screen, and those that have scrolled away above it."""
        away = [
            "".join(line[x].data for x in range(self.screen.columns)).rstrip()
            for line in self.screen.history.top
        ]
        return [*away, *self.lines]

    @property
    def echoes(self) -> bool:
        """Whether the terminal shows what is typed, as a shell expects it."""
        return bool(termios.tcgetattr(self._end)[3] & termios.ECHO)


def ovd(arguments: Sequence[str], *, before: str = "") -> str:
    """Code that runs the command line, after ``before``."""
    return f"{before}\nfrom training.cli import main\nmain({list(map(str, arguments))!r})"
