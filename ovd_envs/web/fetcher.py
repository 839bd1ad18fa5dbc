"""Reading pages of the real web, which is hostile: every page ends within its limits."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from ovd_envs.errors import OVDError
from ovd_envs.web.addresses import AllowedHosts, WebAddress, check_address, parse_url
from ovd_envs.web.connection import Resolver, system_resolver
from ovd_envs.web.content import decompressed, text_type, too_large
from ovd_envs.web.deadline import Deadline
from ovd_envs.web.extract import Extracted, extract
from ovd_envs.web.page import FetchError, Page
from ovd_envs.web.page_cache import PageCache
from ovd_envs.web.politeness import Politeness
from ovd_envs.web.robots import RobotsRules
from ovd_envs.web.visit import Answer, Manners, Visit

USER_AGENT = "ovd/0.1"
MAX_BYTES = 10_000_000
TIME_LIMIT = 15.0
MAX_REDIRECTS = 10

_TYPES = {".html": "text/html", ".htm": "text/html", ".xhtml": "application/xhtml+xml"}


@dataclass(frozen=True, slots=True)
class FetchedPage(Page):
    """A page of the web, and what is known of how it came."""

    status: int = 200
    """Of HTTP; a saved page has 200."""
    content_type: str = ""
    """The header as it was sent."""
    encoding: str = ""
    """What its bytes were read as, Python's name."""
    how: str = ""
    """How the text was found: see ``Extracted.how``."""
    from_cache: bool = False


class Fetcher:
    """Reads the main text of pages; a ``PageReader``. One object may serve many threads.

    Private, loopback and link-local addresses are refused, after DNS and after each redirect; the
    connection goes to the very address that was checked. Proxies of the environment and
    ``.netrc`` are not used: a proxy would do a look-up of its own.

    Args:
        allow: hosts ("localhost", "10.0.0.7", "host:8000") that may be read although they are
            private, local or on an unusual port; no politeness delay is kept for them.
        max_bytes: of a page, as it is sent and as it is unpacked.
        time_limit: seconds for a page, from look-up to last byte, redirects and retries included.
        max_redirects: redirects that are followed.
        robots: keep to what the sites' robots.txt say.
        delay: least seconds between two pages of one host.
        cache: a folder in which pages are kept; several processes may share it.
        max_age: seconds after which a kept page is read anew; ``None``: never.
        user_agent: what sites are told of who reads them, and what robots.txt is read for.
        resolve: look-up of host names.

    Raises:
        OVDError: for a limit that is not positive, or a host that is none.
    """

    blocks = True

    def __init__(
        self,
        *,
        allow: Iterable[str] = (),
        max_bytes: int = MAX_BYTES,
        time_limit: float = TIME_LIMIT,
        max_redirects: int = MAX_REDIRECTS,
        robots: bool = False,
        delay: float = 1.0,
        cache: str | Path | None = None,
        max_age: float | None = None,
        user_agent: str = USER_AGENT,
        resolve: Resolver = system_resolver,
    ) -> None:
        for name, value in (("max_bytes", max_bytes), ("time_limit", time_limit)):
            if value <= 0:
                raise OVDError(f"{name}: expected more than 0, got {value}")
        for name, value in (("max_redirects", max_redirects), ("delay", delay)):
            if value < 0:
                raise OVDError(f"{name}: expected at least 0, got {value}")
        self._allowed = AllowedHosts(allow)
        self._max_bytes = max_bytes
        self._time_limit = time_limit
        self._cache = PageCache(cache, max_age) if cache is not None else None
        self._manners = Manners(
            allowed=self._allowed,
            resolve=resolve,
            politeness=Politeness(delay),
            robots=RobotsRules(user_agent) if robots else None,
            user_agent=user_agent,
            max_redirects=max_redirects,
        )

    def read(self, url: str) -> FetchedPage:
        """The page at ``url``. Raises ``FetchError`` where it cannot be had; nothing else."""
        asked = parse_url(url)
        check_address(asked, self._allowed)
        kept = self._kept(asked)
        if kept is not None:
            return kept
        answer = Visit(self._manners, Deadline(self._time_limit)).get(asked, self._max_bytes)
        page = _page_of(answer)
        if self._cache is not None:
            try:
                self._cache.put(asked.url, {**asdict(page), "allowed": answer.allowed})
            except OVDError as error:  # the page is there all the same
                warnings.warn(f"a page is not kept: {error}", stacklevel=2)
        return page

    def _kept(self, address: WebAddress) -> FetchedPage | None:
        """The page from the cache, if the hosts it came from would be allowed now as well."""
        entry = self._cache.get(address.url) if self._cache is not None else None
        if entry is None:
            return None
        try:
            if not all(self._allowed.allows(host, port) for host, port in entry["allowed"]):
                return None
            names = {field.name for field in fields(FetchedPage)}
            values = {name: value for name, value in entry.items() if name in names}
            return FetchedPage(**{**values, "from_cache": True})
        except (KeyError, TypeError, ValueError):
            return None  # somebody else's file: the page is read, and the file mended


def read_file(path: str | Path) -> FetchedPage:
    """The text of a saved page, as if it had been fetched; ".gz" is unpacked.

    Raises ``FetchError`` for a file that is too large, no text or not there.
    """
    path = Path(path)
    if path.is_dir():
        raise FetchError("cannot be read (it is a folder)")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise too_large(MAX_BYTES)
        body = path.read_bytes()
    except OSError as error:
        raise FetchError(f"cannot be read ({error.strerror})") from error
    packed = path.suffix == ".gz"
    if packed:
        body = b"".join(decompressed([body], "gzip", MAX_BYTES))
    suffix = Path(path.stem).suffix if packed else path.suffix
    content_type = _TYPES.get(suffix.lower(), "")
    found = _extract(body, content_type)
    return FetchedPage(
        url=str(path),
        title=found.title,
        text=found.text,
        content_type=content_type,
        encoding=found.encoding,
        how=found.how,
    )


def _page_of(answer: Answer) -> FetchedPage:
    found = _extract(answer.body, answer.content_type)
    return FetchedPage(
        url=answer.address.url,
        title=found.title,
        text=found.text,
        status=answer.status,
        content_type=answer.content_type,
        encoding=found.encoding,
        how=found.how,
    )


def _extract(body: bytes, content_type: str) -> Extracted:
    """The text of a page. Raises ``FetchError`` where there is none."""
    found = extract(body, text_type(body, content_type))
    if not found.text:
        raise FetchError("no text: the page shows none without pictures or JavaScript")
    return found
