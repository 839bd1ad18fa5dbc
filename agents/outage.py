"""A circuit: when nothing gets an answer any more, all wait and one call at a time knocks."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from ovd_envs.errors import OVDError

#: Longest pause between two calls that knock, in seconds.
MAX_PAUSE = 30.0


class OutageError(OVDError):
    """Nothing has been answered for longer than the patience lasts."""


class HaltedError(OVDError):
    """Nothing more is to be asked: this call was not begun, or not begun again."""


class Circuit:
    """Lets calls pass while some succeed; opens once as many as ``threshold`` calls fail in a row.

    In a row means: each of them failed and none succeeded in between. While it is open one call
    at a time passes, after a pause that doubles up to ``MAX_PAUSE``; its success closes the
    circuit. After ``patience`` seconds the waiting calls end in an ``OutageError``; later ones
    do at once, but for one that knocks after each pause.

    It belongs to one event loop. ``tell`` is called with a line when it opens and when it closes.
    """

    def __init__(
        self,
        where: str,
        *,
        threshold: int,
        first_pause: float,
        patience: float,
        tell: Callable[[str], None],
    ) -> None:
        self._where = where
        self._threshold = threshold
        self._first_pause = first_pause
        self._patience = patience
        self._tell = tell
        self._failing: set[int] = set()
        self._since: float | None = None
        self._why = ""
        self._pause = first_pause
        self._knock_at = 0.0
        self._knocking = asyncio.Lock()
        self._halted = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """Whether calls wait."""
        return self._since is not None

    async def enter(self) -> bool:
        """Return when the call may be made. ``True``: it knocks, and must ``leave`` afterwards.

        Raises ``OutageError`` and ``HaltedError``.
        """
        self._check()
        if self._since is None:
            return False
        await self._knocking.acquire()
        try:
            await self._wait()
        except BaseException:
            self._knocking.release()
            raise
        if not self.is_open:  # it was closed meanwhile
            self._knocking.release()
            return False
        return True

    def leave(self) -> None:
        """The call that knocked has its result, and has told it."""
        self._knocking.release()

    def succeeded(self, *, knocked: bool) -> None:
        """A call was answered. ``knocked``: it is one that the open circuit let pass.

        Another one was under way when the circuit opened: that it is answered says nothing of the
        next, e.g. of a server that finishes what it has and is gone.
        """
        if self.is_open and not knocked:
            return
        self._failing.clear()
        if self._since is not None:
            self._tell(f"{self._where} answers again, after {time.monotonic() - self._since:.0f} s")
            self._since = None

    def failed(self, call: int, why: str, *, knocked: bool, refused: bool, pending: int) -> None:
        """A call, known by its number, got no answer.

        ``refused``: nobody was there to refuse it, so a single call is as good as many where no
        more are ``pending``.
        """
        self._failing.add(call)
        now = time.monotonic()
        if self._since is None:
            enough = min(self._threshold, pending) if refused else self._threshold
            if len(self._failing) < enough:
                return
            self._since, self._why, self._pause = now, why, self._first_pause
            self._tell(
                f"{self._where} does not answer ({why}): waiting, one call at a time knocks, "
                f"for {self._patience:g} s at most"
            )
        elif knocked:
            self._why, self._pause = why, min(2 * self._pause, MAX_PAUSE)
        else:
            return  # it was under way when the circuit opened
        self._knock_at = now + self._pause * random.uniform(0.75, 1.0)

    async def sleep(self, seconds: float) -> None:
        """Sleep, unless all is halted: then raise ``HaltedError``."""
        try:
            await asyncio.wait_for(self._halted.wait(), seconds)
        except TimeoutError:
            return
        self._check()

    def halt(self, halted: bool) -> None:
        """Let no call pass any more, and wake those that sleep; or let them pass again."""
        if halted:
            self._halted.set()
        else:
            self._halted.clear()

    def _check(self) -> None:
        if self._halted.is_set():
            raise HaltedError(f"{self._where}: nothing more is asked")

    async def _wait(self) -> None:
        """Until it is time to knock, or the circuit is closed, or patience has ended."""
        self._check()
        if self._since is None:
            return
        now = time.monotonic()
        ends = self._since + self._patience
        if self._knock_at <= max(now, ends):
            # A timer may fire a little early: to knock then is as good.
            await self.sleep(max(self._knock_at - now, 0.0))
            return
        await self.sleep(max(ends - now, 0.0))
        if self.is_open:
            raise OutageError(
                f"{self._where} did not answer for {self._patience:g} s ({self._why})"
            )
