"""Searches on the real web, by the API of one of several providers."""

from __future__ import annotations

import html
import json
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import requests
import tenacity
import urllib3

from ovd_envs.errors import OVDError
from ovd_envs.search.protocol import QueryError, SearchError, SearchResult
from ovd_envs.search.providers import PROVIDERS, Provider
from ovd_envs.web.plain_text import clean
from ovd_envs.web.retry_after import retry_after

#: Statuses that may be over in a moment.
_PASSING = frozenset({429, 500, 502, 503, 504})
#: Statuses by which the providers refuse a key or its plan (Tavily: 432, 433).
_KEY_REFUSED = frozenset({401, 402, 403, 432, 433})
#: Statuses by which they refuse a query.
_QUERY_REFUSED = frozenset({400, 413, 414, 422})
#: An answer of more bytes is not one to a search.
_MAX_BYTES = 20_000_000
#: Brave puts what was searched for into <strong>.
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")


class _Passing(Exception):
    """A failure that may be over in a moment; ``after`` is the server's own wish, in seconds."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


class WebEngine:
    """Searches the web through Serper, Tavily, Brave or a SearXNG server.

    The key comes from the environment (SERPER_API_KEY, TAVILY_API_KEY, BRAVE_API_KEY; for SearXNG
    its address, SEARXNG_URL) and is shown nowhere. A result's id is its address, its text the
    snippet, its score 1 / rank. A query that is too long for the provider is cut. What may pass
    (no connection, 429, 5xx) is tried again, with growing random pauses or the one that the
    server asks for. May be called from many threads at once.

    Args:
        provider: "serper", "tavily", "brave" or "searxng".
        url: of the API, where it is not the provider's own.
        timeout: seconds that one query may take, retries and pauses included; a query's time
            begins when it is sent, not while others are before it.
        attempts: times that a query is tried.
        parallel: queries under way at once.

    Raises:
        OVDError: for an unknown provider, a limit that is not positive, or a missing key.
    """

    blocks = True

    def __init__(
        self,
        provider: str,
        *,
        url: str | None = None,
        timeout: float = 30.0,
        attempts: int = 5,
        parallel: int = 4,
    ) -> None:
        if provider not in PROVIDERS:
            raise OVDError(f"provider: expected one of {', '.join(PROVIDERS)}, got {provider!r}")
        for name, value in (("timeout", timeout), ("attempts", attempts), ("parallel", parallel)):
            if not value > 0:
                raise OVDError(f"{name}: expected more than 0, got {value!r}")
        self.name = f"web:{provider}"
        self._provider = PROVIDERS[provider]
        self._key = _key(self._provider) if self._provider.needs_key else ""
        self._url = _address(self._provider, url)
        self._timeout = timeout
        self._attempts = attempts
        self._parallel = parallel
        self._sessions = threading.local()

    def search(self, queries: Sequence[str], k: int) -> list[list[SearchResult]]:
        """For each query, in order, at most ``k`` results, the best first.

        At most as many as the provider gives in one request (Tavily and Brave: 20). Raises
        ``SearchError`` where the provider is down, refuses the key or answers nonsense,
        ``QueryError`` (with what the others found) where it refuses a query, and ``OVDError``
        where ``k`` is below 1.
        """
        if k < 1:
            raise OVDError(f"k: expected at least 1, got {k}")
        texts = [_sendable(query, self._provider.longest) for query in queries]
        if not any(texts):
            return [[] for _ in texts]
        pool = ThreadPoolExecutor(min(self._parallel, len(texts)))
        lists: list[list[SearchResult]] = []
        found: dict[str, list[SearchResult]] = {}
        refused: QueryError | None = None
        try:
            futures = [pool.submit(self._search_one, text, k) for text in texts]
            for query, future in zip(queries, futures, strict=True):
                try:
                    found[query] = future.result()
                    lists.append(found[query])
                except QueryError as error:
                    refused = refused or error
        finally:
            pool.shutdown(cancel_futures=True)
        if refused is not None:
            raise QueryError(str(refused), self.name, found) from refused
        return lists

    def _search_one(self, query: str, k: int) -> list[SearchResult]:
        if not query:
            return []
        deadline = time.monotonic() + self._timeout
        jitter = tenacity.wait_random_exponential(multiplier=0.5, max=10.0)

        def pause(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            wished = error.after if isinstance(error, _Passing) else None
            return jitter(state) if wished is None else wished + 0.1 * jitter(state)

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_Passing),
            wait=pause,
            stop=lambda state: (
                state.attempt_number >= self._attempts
                or time.monotonic() + state.upcoming_sleep >= deadline
            ),
            reraise=True,
        )
        try:
            return retrying(self._ask, query, k, deadline)
        except _Passing as error:
            raise self._error(str(error)) from error

    def _ask(self, query: str, k: int, deadline: float) -> list[SearchResult]:
        asked = self._provider.ask(self._key, query, min(k, self._provider.most))
        left = deadline - time.monotonic()
        if left <= 0:
            raise self._error(f"no answer within {self._timeout:g} s")
        try:
            with self._session().request(
                asked.method,
                self._url + asked.path,
                params=dict(asked.params),
                json=asked.body,
                headers={"Accept": "application/json", **asked.headers},
                timeout=left,
                # A redirect would carry the key to somebody else.
                allow_redirects=False,
                stream=True,
            ) as response:
                answer = b"".join(self._chunks(response, deadline))
        except requests.Timeout:
            raise self._error(f"no answer within {self._timeout:g} s") from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise _Passing(f"cannot be reached ({_reason(error)})") from error
        status = response.status_code
        if status in _PASSING:
            wished = retry_after(response.headers.get("Retry-After"))
            raise _Passing(f"HTTP {status}{self._detail(answer)}", wished)
        if status in _KEY_REFUSED:
            advice = f"; is {self._provider.variable} right?"
            raise self._error(f"HTTP {status}{self._detail(answer)}{advice}")
        if status in _QUERY_REFUSED:
            raise QueryError(f"{self.name}: HTTP {status}{self._detail(answer)}")
        if status != 200:
            raise self._error(f"HTTP {status}{self._detail(answer)}")
        return self._results(answer)[:k]

    def _session(self) -> requests.Session:
        """A session of this thread's own; ``requests`` does not promise more."""
        session: requests.Session | None = getattr(self._sessions, "session", None)
        if session is None:
            session = self._sessions.session = requests.Session()
        return session

    def _chunks(self, response: requests.Response, deadline: float) -> Iterator[bytes]:
        size = 0
        # read1 gives what has come; read would wait for ever for a server that drips.
        while chunk := response.raw.read1(2**16, decode_content=True):
            size += len(chunk)
            if size > _MAX_BYTES:
                raise self._error(f"an answer of more than {_MAX_BYTES} bytes")
            if time.monotonic() > deadline:
                raise self._error(f"no answer within {self._timeout:g} s")
            yield chunk

    def _results(self, answer: bytes) -> list[SearchResult]:
        try:
            found = json.loads(answer)
        except (ValueError, RecursionError) as error:
            raise self._error("not an answer to a search: it is not JSON") from error
        *groups, last = self._provider.results
        for name in groups:  # Brave leaves "web" out where nothing was found
            found = found.get(name, {last: []}) if isinstance(found, dict) else None
        found = found.get(last) if isinstance(found, dict) else None
        if not isinstance(found, list):
            raise self._error(f"not an answer to a search: no list {last!r}")
        results: dict[str, SearchResult] = {}
        for item in found:
            url = item.get(self._provider.link) if isinstance(item, dict) else None
            if isinstance(url, str) and url and url not in results:
                title, text = _plain(item.get("title")), _plain(item.get(self._provider.text))
                results[url] = SearchResult(url, title, text, url, 1 / (len(results) + 1))
        return list(results.values())

    def _detail(self, answer: bytes) -> str:
        """What a refusal says, as much of it as fits a line, without the key (some repeat it)."""
        text = answer[:10_000].decode("utf-8", "replace")
        if self._key:
            text = text.replace(self._key, "***")
        text = " ".join(clean(text).split())[:200]
        return f": {text}" if text else ""

    def _error(self, reason: str) -> SearchError:
        return SearchError(f"{self.name}: {reason}")


def _key(provider: Provider) -> str:
    key = os.environ.get(provider.variable, "").strip()
    if not key:
        raise OVDError(f"web:{provider.name}: set {provider.variable} to {provider.wanted}")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise OVDError(f"{provider.variable}: not a key: it holds a space or an odd character")
    return key


def _address(provider: Provider, url: str | None) -> str:
    if url is None:
        url = provider.url or os.environ.get(provider.variable, "").strip()
    if not url:
        raise OVDError(f"web:{provider.name}: set {provider.variable} to {provider.wanted}")
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        known = False
    if not known:
        raise OVDError(f"web:{provider.name}: expected an address like https://HOST, got another")
    return url.rstrip("/")


def _sendable(query: str, longest: int) -> str:
    """``query`` in one line, without what is not text, cut at a word where it is too long."""
    query = " ".join(clean(query).split())
    if len(query) <= longest:
        return query
    return query[:longest].rpartition(" ")[0] or query[:longest]


def _plain(value: object) -> str:
    """A title or snippet without markup."""
    text = html.unescape(_TAG.sub("", value)) if isinstance(value, str) else ""
    return " ".join(clean(text).split())


def _reason(error: BaseException) -> str:
    """Why a connection failed, in the operating system's words where they are known."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__
