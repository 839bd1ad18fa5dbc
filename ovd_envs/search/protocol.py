"""What a search engine must offer, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from ovd_envs.errors import OVDError


class SearchError(OVDError):
    """A search that could not be done: an engine that is down, refuses, or cannot be read."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """One result of a search."""

    id: str
    """Identity of the document within its engine."""
    title: str
    text: str
    """The passage, or the snippet that a web search shows."""
    url: str = ""
    """Where the whole document can be read; empty where the text is all there is."""
    score: float = 0.0
    """The engine's own measure, larger is better; comparable within one query only."""

    def to_dict(self) -> dict[str, Any]:
        """The result as plain JSON."""
        return {
            "id": self.id,
            "title": self.title,
            "text": self.text,
            "url": self.url,
            "score": self.score,
        }


class QueryError(SearchError):
    """A search that failed because of one query alone: the engine answers others.

    Args:
        message: one line.
        engine: name of the engine that raises it, where it gives ``found``.
        found: its results for other queries of the same call, by query: they need not be asked
            for, and paid for, again.
    """

    def __init__(
        self,
        message: str,
        engine: str = "",
        found: Mapping[str, Sequence[SearchResult]] | None = None,
    ) -> None:
        super().__init__(message)
        self.engine = engine
        self.found = dict(found or {})


@runtime_checkable
class SearchEngine(Protocol):
    """Finds documents for queries, many queries at once.

    An engine may also define ``close()``. Use it as a context manager through
    ``contextlib.closing`` where it does.

    An engine whose searches wait for something outside of this process, and that may be asked from
    several threads at once, may say so: ``blocks = True``. Environments that search in it are then
    stepped in threads (``TextEnv.blocks``).

    An engine that must know whose search it is (one that a model plays) may define
    ``for_task(task: Task, *, training_step: int | None) -> SearchEngine``: the engine for one
    episode of ``task``. An environment calls it at each reset where it is there, and searches in
    what it returns. Only in training may the results depend on the gold answers;
    ``training_step`` is ``None`` everywhere else.
    """

    name: str

    def search(self, queries: Sequence[str], k: int) -> list[list[SearchResult]]:
        """For each query, in order, at most ``k`` results, the best first.

        Any text is a query: one that means nothing to the engine (blank, only punctuation, its
        own operators left open) finds nothing or is read as words; it never raises. Raises
        ``SearchError`` where the search itself fails (``QueryError`` where it fails for one query
        alone), and ``OVDError`` where ``k`` is below 1.
        """
        ...


def blocks(part: object) -> bool:
    """Whether an engine, or a reader of pages, says that it blocks."""
    return bool(getattr(part, "blocks", False))
