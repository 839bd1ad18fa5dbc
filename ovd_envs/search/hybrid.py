"""Several search engines as one: reciprocal rank fusion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ovd_envs.errors import OVDError
from ovd_envs.search.protocol import SearchResult, blocks
from ovd_envs.search.registry import EngineSpec, make_engine
from ovd_envs.task import Task

#: The constant of Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet and
#: individual rank learning methods", SIGIR 2009.
CONSTANT = 60


class HybridEngine:
    """Fuses the results of several engines by their ranks: score = sum of 1 / (60 + rank).

    Each engine is asked for as many results as are wanted; deeper lists find less (measured in
    docs/search.md). So the best 3 need not be the first of the best 10. A document is the same in
    two engines where id, title and text are. Equal scores are in the order in which the engines,
    taken in turn, bring them up.

    Args:
        engines: an index folder (its BM25 and its vectors), or the engines, as ``make_engine``
            takes them.

    Raises ``OVDError`` for fewer than two engines, and what making them raises.
    """

    def __init__(self, engines: str | Path | Sequence[EngineSpec]) -> None:
        if isinstance(engines, str | Path):
            engines = [f"bm25:{engines}", f"dense:{engines}"]
        if len(engines) < 2:
            raise OVDError(f"engines: expected two or more, got {len(engines)}")
        self._engines = [make_engine(spec) for spec in engines]
        self.name = f"hybrid({', '.join(engine.name for engine in self._engines)})"
        self.blocks = any(map(blocks, self._engines))

    def search(self, queries: Sequence[str], k: int) -> list[list[SearchResult]]:
        """For each query, in order, at most ``k`` results, the best first."""
        if k < 1:
            raise OVDError(f"k: expected at least 1, got {k}")
        lists = [engine.search(queries, k) for engine in self._engines]
        return [fuse(ranked, k) for ranked in zip(*lists, strict=True)]

    @property
    def for_task(self) -> Callable[..., HybridEngine] | None:
        """Binds to a task the engines that can be; ``None`` where none can.

        Who has it is taken to answer each task in its own way (``CassetteEngine``).
        """
        told = any(getattr(engine, "for_task", None) is not None for engine in self._engines)
        return self._for_task if told else None

    def _for_task(self, task: Task, *, training_step: int | None) -> HybridEngine:
        bound: list[EngineSpec] = []
        for engine in self._engines:
            bind = getattr(engine, "for_task", None)
            bound.append(engine if bind is None else bind(task, training_step=training_step))
        return HybridEngine(bound)

    def close(self) -> None:
        """Close the engines that can be closed."""
        for engine in self._engines:
            close = getattr(engine, "close", None)
            if close is not None:
                close()


def fuse(lists: Sequence[Sequence[SearchResult]], k: int) -> list[SearchResult]:
    """The best ``k`` of ranked lists of one query, by reciprocal rank."""
    scores: dict[tuple[str, str, str], float] = {}
    first: dict[tuple[str, str, str], SearchResult] = {}
    for rank in range(max(map(len, lists), default=0)):
        for ranked in lists:
            if rank < len(ranked):
                result = ranked[rank]
                key = (result.id, result.title, result.text)
                first.setdefault(key, result)
                scores[key] = scores.get(key, 0.0) + 1 / (CONSTANT + rank + 1)
    # sorted is stable, and a dict keeps the order in which its keys came.
    best = sorted(scores, key=lambda key: -scores[key])[:k]
    return [replace(first[key], score=scores[key]) for key in best]
