"""The way to one page: redirects, retries, robots.txt, and the reason where it ends early."""

from __future__ import annotations

import contextlib
import errno
import http
import http.client
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, replace
from urllib.parse import urljoin

import requests
import tenacity
import urllib3

from ovd_envs.web.addresses import AllowedHosts, WebAddress, check_address, parse_url
from ovd_envs.web.connection import Guard, GuardedAdapter, Resolver
from ovd_envs.web.content import decompressed, refuse_type, text_type, too_large
from ovd_envs.web.deadline import Deadline
from ovd_envs.web.encoding import decode
from ovd_envs.web.page import FetchError
from ovd_envs.web.politeness import Politeness
from ovd_envs.web.retry_after import retry_after
from ovd_envs.web.robots import MAX_ROBOTS_BYTES, RobotsRules

_REDIRECTS = (301, 302, 303, 307, 308)
#: Answers that ask us to come back: Too Many Requests, Service Unavailable.
_LATER = (429, 503)
_TRIES = 3
#: Seconds until we do where they don't say when.
_PAUSE = 1.0
_CHUNK = 65_536
_UNREACHABLE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ETIMEDOUT, errno.EADDRNOTAVAIL)
_HEADERS = {
    "Accept": "text/html, application/xhtml+xml, text/plain;q=0.9, */*;q=0.5",
    "Accept-Encoding": "gzip, deflate",  # what ``decompressed`` can unpack within a limit
    "Connection": "close",
}


class StatusError(FetchError):
    """The server said no."""

    def __init__(self, status: int) -> None:
        try:
            phrase = f" {http.HTTPStatus(status).phrase}"
        except ValueError:
            phrase = ""
        super().__init__(f"HTTP {status}{phrase}")
        self.status = status


class _LaterError(StatusError):
    """The server asks to come back in ``wait`` seconds."""

    def __init__(self, status: int, wait: float) -> None:
        super().__init__(status)
        self.wait = wait


@dataclass(frozen=True, slots=True)
class Answer:
    """What came in the end."""

    address: WebAddress
    status: int
    content_type: str
    """The header as it was sent."""
    body: bytes
    """Unpacked."""
    allowed: tuple[tuple[str, int], ...]
    """Hosts and ports on the way that were reached only because they are allowed by name."""


@dataclass(frozen=True, slots=True)
class Manners:
    """What all pages of a reader have in common."""

    allowed: AllowedHosts
    resolve: Resolver
    politeness: Politeness
    robots: RobotsRules | None
    user_agent: str
    max_redirects: int


class _Session(requests.Session):
    """Cookies of one visit, and no more: what is done by hand here is not done by ``requests``."""

    def __init__(self) -> None:
        super().__init__()
        # No proxy, password or certificate of the environment: see ``connection``.
        self.trust_env = False

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """No redirect. Even where none is to be followed, ``requests`` would look where it leads,
        and for that read and unpack its whole body: a place for a bomb.
        """
        return None


class Visit:
    """One page's way, within one deadline."""

    def __init__(self, manners: Manners, deadline: Deadline) -> None:
        self._manners = manners
        self._deadline = deadline
        self._asked: set[tuple[str, int]] = set()
        self._session = _Session()
        self._session.headers.update(_HEADERS)
        self._session.headers["User-Agent"] = manners.user_agent

    def get(self, address: WebAddress, max_bytes: int) -> Answer:
        """What is at ``address``. Raises ``FetchError``."""
        with self._session:
            return self._follow(address, max_bytes, robots=self._manners.robots)

    def _follow(self, address: WebAddress, max_bytes: int, robots: RobotsRules | None) -> Answer:
        """Go from redirect to redirect; each is checked as if it had been asked for."""
        allowed: list[tuple[str, int]] = []
        seen: set[str] = set()
        redirected = ""
        while len(seen) <= self._manners.max_redirects:
            seen.add(address.url)
            try:
                check_address(address, self._manners.allowed)
                if self._manners.allowed.allows(address.host, address.port):
                    allowed.append((address.host, address.port))
                if robots is not None:
                    robots.check(address, self._robots_text)
                self._wait_our_turn(address)
                answer = self._ask(address, max_bytes)
            except StatusError:
                raise
            except FetchError as error:
                raise FetchError(f"{error}{redirected}") from error
            if isinstance(answer, Answer):
                return replace(answer, allowed=tuple(allowed))
            address = answer
            if address.url in seen:
                raise FetchError("redirect loop")
            redirected = f" (after a redirect to {_short(address.url)})"
        raise FetchError(f"too many redirects: more than {self._manners.max_redirects}")

    def _wait_our_turn(self, address: WebAddress) -> None:
        host = (address.host, address.port)
        # Redirects within a site belong to one page; whoever allows a host by name owns it.
        if host not in self._asked and not self._manners.allowed.allows(*host):
            with self._deadline.paused():
                self._manners.politeness.wait(address.host)
        self._asked.add(host)

    def _robots_text(self, address: WebAddress) -> str | None:
        """RFC 9309, section 2.3.1: a site without the file (4xx) allows everything."""
        try:
            answer = self._follow(address, MAX_ROBOTS_BYTES, robots=None)
        except StatusError as error:
            if 400 <= error.status < 500 and error.status != http.HTTPStatus.TOO_MANY_REQUESTS:
                return None
            raise
        return decode(answer.body, "utf-8")[0]

    def _ask(self, address: WebAddress, max_bytes: int) -> Answer | WebAddress:
        """What is at ``address``, or where it sends us; asks again where the server wants that."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_LaterError),
            wait=lambda state: _wait_of(state),
            stop=lambda state: state.attempt_number >= _TRIES or not self._has_time_for(state),
            reraise=True,
        )
        return retrying(self._ask_once, address, max_bytes)

    def _has_time_for(self, state: tenacity.RetryCallState) -> bool:
        return _wait_of(state) < self._deadline.left()

    def _ask_once(self, address: WebAddress, max_bytes: int) -> Answer | WebAddress:
        guard = Guard(self._manners.resolve, self._manners.allowed, self._deadline, max_bytes)
        self._session.mount("http://", GuardedAdapter(guard))
        self._session.mount("https://", GuardedAdapter(guard))
        try:
            response = self._session.get(
                address.url, stream=True, allow_redirects=False, timeout=self._deadline.left()
            )
            with response:
                return self._read(address, response, max_bytes)
        except (
            requests.RequestException,
            urllib3.exceptions.HTTPError,
            http.client.HTTPException,
            OSError,
            ValueError,
        ) as error:
            raise self._reason(error) from error

    def _read(
        self, address: WebAddress, response: requests.Response, max_bytes: int
    ) -> Answer | WebAddress:
        status = response.status_code
        if status in _REDIRECTS and response.headers.get("Location"):
            return _target(address, response.headers["Location"])
        if status in _LATER:
            wait = retry_after(response.headers.get("Retry-After"))
            raise _LaterError(status, _PAUSE if wait is None else wait)
        if not 200 <= status < 300:
            raise StatusError(status)
        content_type = response.headers.get("Content-Type", "")
        refuse_type(content_type)
        announced = response.headers.get("Content-Length", "")
        if announced.isdigit() and int(announced[:20]) > max_bytes:
            raise too_large(max_bytes)
        encoding = response.headers.get("Content-Encoding", "")
        chunks = response.raw.stream(_CHUNK, decode_content=False)
        body = bytearray()
        for chunk in decompressed(chunks, encoding, max_bytes):
            if not body and chunk:
                text_type(chunk, content_type)  # a binary need not be read to its end
            body += chunk
        return Answer(address, status, content_type, bytes(body), ())

    def _reason(self, error: Exception) -> FetchError:
        """What went wrong, in a few words without a stranger's text in them."""
        causes = list(_causes(error))
        if self._deadline.over or any(isinstance(cause, TimeoutError) for cause in causes):
            return self._deadline.error()
        for cause in causes:
            match cause:
                case FetchError():
                    return cause
                case ssl.SSLCertVerificationError():
                    return FetchError(f"bad certificate: {cause.verify_message}")
                case ssl.SSLError():
                    return FetchError("no secure connection: TLS failed")
                case ConnectionRefusedError():
                    return FetchError("connection refused")
                case http.client.RemoteDisconnected():
                    return FetchError("the server closed the connection without an answer")
                case http.client.LineTooLong():
                    return FetchError("broken answer: a header that does not end")
                case http.client.BadStatusLine() | http.client.UnknownProtocol():
                    return FetchError("broken answer: not HTTP")
                case http.client.IncompleteRead() | urllib3.exceptions.IncompleteRead():
                    return FetchError("broken off: less came than was announced")
                case http.client.HTTPException() if "headers" in str(cause):
                    return FetchError("broken answer: too many headers")
        if any(isinstance(cause, OSError) and cause.errno in _UNREACHABLE for cause in causes):
            return FetchError("the server cannot be reached")
        return FetchError("broken off: the connection failed before the page was complete")


def _target(address: WebAddress, location: str) -> WebAddress:
    """Where a Location header leads."""
    with contextlib.suppress(UnicodeError):  # headers are read as Latin-1; servers send UTF-8
        location = location.encode("latin-1").decode("utf-8")
    try:
        joined = urljoin(address.url, location.strip())
    except ValueError as error:
        raise FetchError("broken redirect: no web address") from error
    try:
        return parse_url(joined)
    except FetchError as error:
        raise FetchError(f"{error} (in a redirect)") from error


def _wait_of(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    return error.wait if isinstance(error, _LaterError) else 0.0


def _causes(error: BaseException) -> Iterator[BaseException]:
    """``error`` and what led to it, from the outside in."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _short(url: str) -> str:
    return url if len(url) <= 100 else f"{url[:99]}…"
