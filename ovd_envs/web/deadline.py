"""The one limit in time of a page: DNS, connections, headers, body, redirects and retries."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from ovd_envs.web.page import FetchError


class Deadline:
    """``seconds`` from now; every wait asks it how long it may be."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds left, more than 0. Raises ``FetchError`` where there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise self.error()
        return left

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self._end

    def error(self) -> FetchError:
        """What is said when the time is up."""
        return FetchError(f"too slow: more than {self._seconds:g} s")

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Time within is not counted: a wait for our own turn is not the server's fault."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self._end += time.monotonic() - begun
