"""Search engines by name, those of installed packages among them (entry points
"ovd.search_engines"), and by a short text such as "bm25:FOLDER".
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

from ovd_envs.errors import OVDError
from ovd_envs.options import check_options
from ovd_envs.registry import Registry
from ovd_envs.search.protocol import SearchEngine

#: A name stands for a function that returns an engine. Its first parameter is what stands after
#: the colon in "name:VALUE"; its keyword arguments are the engine's options.
search_engines: Registry[Callable[..., SearchEngine]] = Registry(
    "ovd.search_engines", "search engine"
)

search_engines.register(
    "bm25", "ovd_envs.search.bm25:BM25Engine", "a BM25 index on this machine (bm25:FOLDER)"
)
search_engines.register(
    "dense", "ovd_envs.search.dense:DenseEngine", "an index with vectors (dense:FOLDER)"
)
search_engines.register(
    "hybrid",
    "ovd_envs.search.hybrid:HybridEngine",
    "BM25 and dense of an index, or any engines, fused (hybrid:FOLDER)",
)
search_engines.register(
    "http", "ovd_envs.search.http:HttpEngine", "a server of Search-R1's /retrieve (http:URL)"
)
search_engines.register(
    "web", "ovd_envs.search.web:WebEngine", "the web: Serper, Tavily, Brave, SearXNG (web:serper)"
)
search_engines.register(
    "cassette",
    "ovd_envs.search.cassette:CassetteEngine",
    "replays recorded searches (cassette:FILE)",
)

#: What ``make_engine`` takes.
EngineSpec = str | Mapping[str, Any] | SearchEngine


def make_engine(spec: EngineSpec) -> SearchEngine:
    """A search engine from a short text, a mapping (as YAML has it), or itself.

    "bm25:FOLDER", "http:URL", ... is the registered name and its first argument;
    ``{"name": "bm25", "folder": ...}`` is the name and its options. Raises ``RegistrationError``
    for an unknown name and ``OVDError`` for an option that the engine does not have.
    """
    if isinstance(spec, str):
        name, colon, value = spec.partition(":")
        return _make(name, (value,) if colon else (), {})
    if isinstance(spec, Mapping):
        options = dict(spec)
        name = options.pop("name", None)
        if not isinstance(name, str):
            raise OVDError(f"engine: expected a mapping with 'name', got the keys {list(spec)}")
        return _make(name, (), options)
    if isinstance(spec, SearchEngine):
        return spec
    raise OVDError(
        "engine: expected NAME:VALUE, a mapping with 'name', or an object with 'name' and "
        f"'search(queries, k)', got {type(spec).__name__}"
    )


@functools.cache
def _shared(spec: str) -> SearchEngine:
    return make_engine(json.loads(spec))


def shared_engine(spec: EngineSpec) -> SearchEngine:
    """As ``make_engine``, but the same spec gives the same engine in this process.

    For the many environments of a rollout, of which each would open the same index.
    """
    if not isinstance(spec, str | Mapping):
        return make_engine(spec)
    try:
        key = json.dumps(spec, sort_keys=True)
    except TypeError:  # a mapping that holds objects
        return make_engine(spec)
    return _shared(key)


def _make(name: str, values: tuple[str, ...], options: dict[str, Any]) -> SearchEngine:
    factory = search_engines.get(name)
    check_options(f"search engine {name!r}", factory, options, values)
    return factory(*values, **options)
