"""The numbers of ``ovd eval --engine``: how much a search engine finds, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovd_envs.search.recall import measure_recall, read_questions
from ovd_envs.statistics import mean_interval, wilson

if TYPE_CHECKING:
    from rich.table import Table

    from ovd_envs.search.protocol import SearchEngine


def evaluate_engine(
    engine: SearchEngine,
    tasks: str | Path,
    k: int,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Recall of ``engine`` on the questions in the JSONL file ``tasks`` (see ``read_questions``).

    "title_recall": mean over questions of the share of supporting titles among the best ``k``;
    "answer_recall": share of questions with a gold answer inside one of them; each with its "_n"
    and 95 % "_interval", None where no question can be measured so. ``progress`` is called with
    the number of questions so far and of all.
    """
    questions = read_questions(tasks)
    found = measure_recall(
        engine,
        questions,
        k,
        progress=None if progress is None else lambda done: progress(done, len(questions)),
    )
    titles = [recall.titles for recall in found if recall.titles is not None]
    answers = [recall.answer for recall in found if recall.answer is not None]
    return {
        "engine": engine.name,
        "tasks": str(tasks),
        "n": len(questions),
        "k": k,
        **_share("title_recall", titles, _mean_interval),
        **_share("answer_recall", answers, lambda values: wilson(sum(values), len(values))),
    }


def recall_table(result: Mapping[str, Any]) -> Table:
    """The same for people."""
    from rich.markup import escape
    from rich.table import Table

    title = (
        f"{result['engine']}, best {result['k']} of {result['n']} questions in {result['tasks']}"
    )
    table = Table("", "found", "95 %", "questions", title=escape(title))
    for key, name in (
        ("title_recall", "supporting titles"),
        ("answer_recall", "an answer in the text"),
    ):
        if result[key] is not None:
            low, high = result[f"{key}_interval"]
            interval = f"[{low:.1%}, {high:.1%}]"
            table.add_row(name, f"{result[key]:.1%}", escape(interval), str(result[f"{key}_n"]))
    return table


def _share(
    key: str,
    values: Sequence[float],
    interval: Callable[[Sequence[float]], tuple[float, float]],
) -> dict[str, Any]:
    return {
        key: sum(values) / len(values) if values else None,
        f"{key}_interval": list(interval(values)) if values else None,
        f"{key}_n": len(values),
    }


def _mean_interval(values: Sequence[float]) -> tuple[float, float]:
    low, high = mean_interval(values)
    return max(low, 0.0), min(high, 1.0)
