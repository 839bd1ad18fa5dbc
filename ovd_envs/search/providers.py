"""Search APIs of the web: where each is, how it is asked and what it answers.

Serper: serper.dev. Tavily: docs.tavily.com, "Search". Brave: api-dashboard.search.brave.com,
"Web Search API". SearXNG: docs.searxng.org, "Search API". Read in 2026.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """One question to an API."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, object] | None = None
    """Sent as JSON."""


@dataclass(frozen=True, slots=True)
class Provider:
    """A search API."""

    name: str
    variable: str
    """The environment variable that holds the key (or, without keys, the address)."""
    wanted: str
    """What the variable must hold and where to get it."""
    url: str
    """Where the API is; empty where everybody runs their own."""
    most: int
    """Results that one request can give."""
    longest: int
    """Characters of a query that it takes."""
    ask: Callable[[str, str, int], ApiRequest]
    """The request for (key, query, k)."""
    results: tuple[str, ...]
    """The fields that lead to the list of results in the answer."""
    link: str
    text: str
    """The fields of a result that hold its address and its snippet; "title" is everybody's."""
    needs_key: bool = True


def _serper(key: str, query: str, k: int) -> ApiRequest:
    return ApiRequest("POST", "/search", {"X-API-KEY": key}, body={"q": query, "num": k})


def _tavily(key: str, query: str, k: int) -> ApiRequest:
    headers = {"Authorization": f"Bearer {key}"}
    return ApiRequest("POST", "/search", headers, body={"query": query, "max_results": k})


def _brave(key: str, query: str, k: int) -> ApiRequest:
    headers = {"X-Subscription-Token": key}
    return ApiRequest("GET", "/res/v1/web/search", headers, {"q": query, "count": str(k)})


def _searxng(key: str, query: str, k: int) -> ApiRequest:
    return ApiRequest("GET", "/search", params={"q": query, "format": "json"})


PROVIDERS: Mapping[str, Provider] = {
    provider.name: provider
    for provider in (
        Provider(
            name="serper",
            variable="SERPER_API_KEY",
            wanted="a key from https://serper.dev/api-key",
            url="https://google.serper.dev",
            most=100,
            longest=2048,
            ask=_serper,
            results=("organic",),
            link="link",
            text="snippet",
        ),
        Provider(
            name="tavily",
            variable="TAVILY_API_KEY",
            wanted="a key from https://app.tavily.com",
            url="https://api.tavily.com",
            most=20,
            longest=400,
            ask=_tavily,
            results=("results",),
            link="url",
            text="content",
        ),
        Provider(
            name="brave",
            variable="BRAVE_API_KEY",
            wanted="a key from https://api-dashboard.search.brave.com",
            url="https://api.search.brave.com",
            most=20,
            longest=400,
            ask=_brave,
            results=("web", "results"),
            link="url",
            text="description",
        ),
        Provider(
            name="searxng",
            variable="SEARXNG_URL",
            wanted="the address of a SearXNG server whose settings.yml allows the format json",
            url="",
            most=100,
            longest=2048,
            ask=_searxng,
            results=("results",),
            link="url",
            text="content",
            needs_key=False,
        ),
    )
}
