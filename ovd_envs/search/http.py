"""A client of search servers that speak Search-R1's ``/retrieve``."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.cookiejar import DefaultCookiePolicy
from urllib.parse import urlsplit, urlunsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_before_delay,
    wait_random_exponential,
)

from ovd_envs.errors import OVDError
from ovd_envs.search.protocol import SearchError, SearchResult
from ovd_envs.search.wire import Nonsense, from_reply
from ovd_envs.web.retry_after import retry_after

SPELLINGS = ("auto", "queries", "query")

#: A reply of more bytes is not one to a search.
_MAX_BYTES = 256 * 2**20

#: Statuses that may be over in a moment. 500 too: model servers give it when short of memory.
_PASSING = frozenset({429, 500, 502, 503, 504})

#: Connections kept open; more calls at once open their own.
_CONNECTIONS = 64

#: Requests of one query each that are under way at once.
_PARALLEL = 8


class _Passing(Exception):
    """A failure that may be over in a moment; ``after`` is the server's own wish, in seconds."""

    def __init__(self, reason: str, after: float = 0.0) -> None:
        super().__init__(reason)
        self.after = after


class _WantsQuery(Exception):
    """The server says that it misses the field "query"."""


class HttpEngine:
    """Searches on a server of Search-R1's ``/retrieve``: its own, SkyRL's, or ``ovd serve-search``.

    May be called from many threads at once; connections are kept open. A failure that may pass
    (no connection, 429, 5xx) is tried again, with growing random pauses or the one that the
    server asks for ("Retry-After"). What cannot be had is a ``SearchError`` with the address and
    the reason, never an empty result.

    Args:
        url: of the server, with or without "/retrieve"; another path is taken as it is. A user and
            password in it are sent, and shown nowhere.
        timeout: seconds that one ``search`` may take, retries and pauses included.
        attempts: times that a request is tried; more where the server says when to come back.
        batch_size: queries of one request, at most.
        spelling: "queries" (Search-R1), "query" (SkyRL: one query a request), or "auto": the
            first, and the second from the moment that the server asks for it.
    """

    blocks = True

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 120.0,
        attempts: int = 5,
        batch_size: int = 256,
        spelling: str = "auto",
    ) -> None:
        if spelling not in SPELLINGS:
            raise OVDError(f"spelling: expected one of {', '.join(SPELLINGS)}, got {spelling!r}")
        for name, value in (
            ("timeout", timeout),
            ("attempts", attempts),
            ("batch_size", batch_size),
        ):
            if not value > 0:
                raise OVDError(f"{name}: expected more than 0, got {value!r}")
        self._url, self.url = _addresses(url)
        self.name = f"http:{self.url}"
        self._timeout = timeout
        self._attempts = attempts
        self._batch_size = batch_size
        self._spelling = spelling
        self._session = requests.Session()
        # The jar is what the threads would share.
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        adapter = HTTPAdapter(pool_connections=1, pool_maxsize=_CONNECTIONS)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def search(self, queries: Sequence[str], k: int) -> list[list[SearchResult]]:
        """For each query, in order, at most ``k`` results, the best first.

        A server that gives more than ``k`` (Search-R1's web engines do) is cut. Raises
        ``SearchError`` where the server is down, refuses or answers nonsense, and ``OVDError``
        where ``k`` is below 1.
        """
        if k < 1:
            raise OVDError(f"k: expected at least 1, got {k}")
        deadline = time.monotonic() + self._timeout
        texts = [_sendable(query) for query in queries]
        found: list[list[SearchResult]] = []
        start = 0
        while start < len(texts):
            if self._spelling == "query":
                found += self._one_by_one(texts[start:], k, deadline)
                break
            batch = texts[start : start + self._batch_size]
            try:
                found += self._ask({"queries": batch}, len(batch), k, deadline)
            except _WantsQuery:
                self._spelling = "query"
                continue
            start += len(batch)
        return [results[:k] for results in found]

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _one_by_one(
        self, queries: Sequence[str], k: int, deadline: float
    ) -> list[list[SearchResult]]:
        with ThreadPoolExecutor(min(_PARALLEL, len(queries))) as pool:
            return list(
                pool.map(lambda query: self._ask({"query": query}, 1, k, deadline)[0], queries)
            )

    def _ask(
        self, texts: dict[str, object], count: int, k: int, deadline: float
    ) -> list[list[SearchResult]]:
        body = json.dumps({**texts, "topk": k, "return_scores": True}).encode()
        began = time.monotonic()
        jitter = wait_random_exponential(multiplier=0.25, max=5.0)
        late = stop_before_delay(deadline - began)
        tries = 0

        def wished(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            return error.after if isinstance(error, _Passing) else 0.0

        def enough(state: RetryCallState) -> bool:
            # A server that says when to come back is not broken, it is busy.
            return state.attempt_number >= self._attempts and not wished(state)

        retrying = Retrying(
            retry=retry_if_exception_type(_Passing),
            stop=lambda state: enough(state) or late(state),
            wait=lambda state: wished(state) + jitter(state),
            reraise=True,
        )
        try:
            for attempt in retrying:
                with attempt:
                    tries += 1
                    return from_reply(self._post(body, texts, deadline), count)
        except _Passing as error:
            seconds = time.monotonic() - began
            raise SearchError(
                f"{self.url}: {error} (attempt {tries}, after {seconds:.1f} s)"
            ) from error
        except Nonsense as error:
            raise SearchError(f"{self.url}: not an answer to a search: {error}") from error
        raise AssertionError("tenacity ended without an outcome")

    def _post(self, body: bytes, texts: dict[str, object], deadline: float) -> object:
        """The JSON that the server answers with."""
        # Not `== "auto"`: another thread may have found out meanwhile.
        may_respell = "queries" in texts and self._spelling != "queries"
        left = deadline - time.monotonic()
        if left <= 0:
            raise _Passing(f"no answer within {self._timeout:g} s")
        try:
            with self._session.post(
                self._url,
                data=body,
                headers={"Content-Type": "application/json", "Accept": "application/json"},
                timeout=left,
                allow_redirects=False,
                stream=True,
            ) as response:
                answer = _read(response, deadline)
                status, headers = response.status_code, response.headers
        except requests.exceptions.Timeout as error:
            raise _Passing(f"no answer within {self._timeout:g} s") from error
        except (requests.exceptions.ConnectionError, urllib3.exceptions.HTTPError) as error:
            raise _Passing(f"cannot be reached ({_reason(error)})") from error
        except requests.exceptions.RequestException as error:
            raise SearchError(f"{self.url}: {type(error).__name__}") from error
        if status == 422 and may_respell and _asks_query(answer):
            raise _WantsQuery
        if status in _PASSING:
            told = f"HTTP {status}{_detail(answer)}"
            raise _Passing(told, retry_after(headers.get("Retry-After")) or 0.0)
        if status != 200:
            raise SearchError(f"{self.url}: HTTP {status}{_detail(answer)}")
        try:
            return json.loads(answer)
        except (ValueError, RecursionError) as error:
            raise Nonsense(f"it is not JSON ({answer[:40]!r}...)") from error


def _addresses(url: str) -> tuple[str, str]:
    """The address to send to, and the one to show (without user, password and query string)."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise OVDError(f"url: not an address ({error})") from error
    if parts.scheme not in ("http", "https") or not host:
        raise OVDError("url: expected http://HOST:PORT or https://..., got something else")
    parts = parts._replace(path=parts.path.rstrip("/") or "/retrieve", fragment="")
    where = f"[{host}]" if ":" in host else host
    shown = parts._replace(netloc=where if port is None else f"{where}:{port}", query="")
    return urlunsplit(parts), urlunsplit(shown)


def _sendable(query: str) -> str:
    """``query`` without half surrogate pairs, which many servers refuse."""
    return query.encode("utf-8", "replace").decode()


def _read(response: requests.Response, deadline: float) -> bytes:
    """The body, as far as time and size allow. Raises ``_Passing`` and ``Nonsense``."""
    chunks: list[bytes] = []
    size = 0
    # read1 gives what has come; read would wait for ever for a server that drips.
    while chunk := response.raw.read1(2**16, decode_content=True):
        chunks.append(chunk)
        size += len(chunk)
        if size > _MAX_BYTES:
            raise Nonsense(f"more than {_MAX_BYTES} bytes")
        if time.monotonic() > deadline:
            raise _Passing("the answer did not end in time")
    return b"".join(chunks)


def _asks_query(answer: bytes) -> bool:
    """Whether FastAPI's list of faults says that the field "query" is missing."""
    try:
        faults = json.loads(answer)["detail"]
        return any(f["type"] == "missing" and f["loc"][-1] == "query" for f in faults)
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return False


def _detail(answer: bytes) -> str:
    """What a refusal says, as much of it as fits a line."""
    try:
        told = json.loads(answer)["detail"]
    except (ValueError, KeyError, TypeError, RecursionError):
        told = answer[:200].decode("utf-8", "replace")
    text = " ".join(str(told).split())[:200]
    return f": {text}" if text else ""


def _reason(error: BaseException) -> str:
    """Why a connection failed, in the operating system's words where they are known."""
    seen: list[BaseException] = [error]
    for one in seen:
        if isinstance(one, OSError) and one.strerror:
            return one.strerror
        further = (*one.args, getattr(one, "reason", None), one.__cause__, one.__context__)
        seen += [e for e in further if isinstance(e, BaseException) and e not in seen]
    return type(seen[-1]).__name__
