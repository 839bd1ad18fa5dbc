"""robots.txt: what a site asks programs not to read (RFC 9309)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ovd_envs.web.addresses import WebAddress
from ovd_envs.web.page import FetchError

if TYPE_CHECKING:
    from protego import Protego

#: Bytes of a robots.txt that are read (RFC 9309, section 2.5: at least 500 KiB).
MAX_ROBOTS_BYTES = 512_000
#: Seconds for which an answer holds (RFC 9309, section 2.4: at most 24 hours).
_HOLDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class _Answer:
    rules: Protego | None
    """``None``: everything is allowed."""
    until: float


class RobotsRules:
    """The rules of each site, asked for once a day.

    Args:
        agent: the name that the rules are looked up by.
    """

    def __init__(self, agent: str) -> None:
        self._agent = agent
        self._answers: dict[str, _Answer] = {}
        self._lock = threading.Lock()

    def check(self, address: WebAddress, get: Callable[[WebAddress], str | None]) -> None:
        """Raises ``FetchError`` where the site does not want ``address`` to be read.

        ``get`` reads the text of a site's robots.txt: ``None`` where the site has none. Where it
        raises ``FetchError``, nothing of the site may be read.
        """
        with self._lock:
            answer = self._answers.get(address.origin)
        if answer is None or answer.until < time.monotonic():
            answer = self._ask(address, get)
            with self._lock:
                self._answers[address.origin] = answer
        if answer.rules is not None and not answer.rules.can_fetch(address.url, self._agent):
            raise FetchError("refused: the site's robots.txt does not allow it")

    def _ask(self, address: WebAddress, get: Callable[[WebAddress], str | None]) -> _Answer:
        from protego import Protego

        place = WebAddress(address.scheme, address.host, address.port, "/robots.txt")
        try:
            text = get(place)
        except FetchError as error:
            raise FetchError(f"refused: the site's robots.txt cannot be read ({error})") from error
        until = time.monotonic() + _HOLDS
        if text is None:
            return _Answer(None, until)
        return _Answer(Protego.parse(text), until)
