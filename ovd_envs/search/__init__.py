"""Search: one protocol, and the engines that speak it."""

from ovd_envs.search.protocol import QueryError, SearchEngine, SearchError, SearchResult
from ovd_envs.search.registry import EngineSpec, make_engine, search_engines

__all__ = [
    "EngineSpec",
    "QueryError",
    "SearchEngine",
    "SearchError",
    "SearchResult",
    "make_engine",
    "search_engines",
]
