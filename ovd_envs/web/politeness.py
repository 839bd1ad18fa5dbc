"""Not asking one host too often."""

from __future__ import annotations

import threading
import time

from ovd_envs.web.page import FetchError

#: Seconds after which a read gives up waiting for its turn at a busy host.
PATIENCE = 60.0
#: Hosts that are remembered at once.
_MOST_HOSTS = 10_000


class Politeness:
    """At least ``delay`` seconds between the beginnings of two requests to one host.

    For all threads of a process that share the object; other processes know nothing of it.
    """

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._next: dict[str, float] = {}
        self._lock = threading.Lock()

    def wait(self, host: str) -> None:
        """Wait for our turn at ``host``. Raises ``FetchError`` where that takes too long."""
        if self._delay <= 0:
            return
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next.get(host, now))
            if turn - now > PATIENCE:
                raise FetchError("busy: too many pages of this site are being read")
            self._next[host] = turn + self._delay
            if len(self._next) > _MOST_HOSTS:
                self._next = {known: when for known, when in self._next.items() if when > now}
        time.sleep(turn - now)
