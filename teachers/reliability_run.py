"""What reliability asks of a judge beyond its verdicts: the same again, and groups turned round."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from agents.episode import read_episodes
from ovd_envs.statistics import mean_interval
from teachers.acceptance import DEFAULT_THETA
from teachers.protocol import Judge
from teachers.ranking import Estimate
from teachers.reliability import Judged, Order, Reliability, reliability
from teachers.score import score
from teachers.score_file import Identity, score_file
from teachers.verdict import Verdict
from teachers.whole_groups import Grouping


def measure(
    judge: Judge,
    episodes: str | Path,
    runs: Sequence[Sequence[Verdict]],
    *,
    theta: float = DEFAULT_THETA,
    precision: float | None = None,
) -> Reliability:
    """The reliability of ``judge`` from its verdicts on the episodes of a file, in their order.

    ``runs`` are the verdicts, and those of every repeat (``ask_again``). A judge that scores
    whole groups is asked once more here, for the effect of their order.
    """
    stream = read_episodes(episodes)
    judged = [Judged.of(e, verdict) for e, verdict in zip(stream, runs[0], strict=True)]
    order, skipped = order_effect(judge, episodes, runs[0])
    return reliability(
        judge.name,
        judged,
        theta=theta,
        precision=precision,
        repeats=runs,
        order=order,
        order_skipped=skipped,
    )


def repeat_file(out: Path, number: int) -> Path:
    """Where the verdicts of repeat ``number`` (2 and up) are saved, beside those of the first."""
    return out.with_name(f"{out.stem}.repeat-{number}{out.suffix}")


def ask_again(
    judge: Judge,
    episodes: str | Path,
    out: Path,
    number: int,
    identities: Sequence[Identity] | None = None,
    progress: Callable[[Verdict, bool], None] | None = None,
    *,
    paid: Iterable[Verdict] = (),
) -> list[Verdict]:
    """Verdicts of repeat ``number`` (2 and up), without the cache; saved and gone on with as any.

    A judge that samples is told the number by its ``repeat`` (and its members by theirs): its
    random numbers are named, so that it would say the same again. ``paid`` are the verdicts of the
    runs before: one budget holds for all.
    """
    _set_repeat(judge, number - 1)
    try:
        target = repeat_file(out, number)
        return score_file(
            judge, episodes, target, identities=identities, progress=progress, paid=paid
        )
    finally:
        _set_repeat(judge, 0)


def order_effect(
    judge: Judge, episodes: str | Path, verdicts: Sequence[Verdict]
) -> tuple[Order | None, str]:
    """What the place within a group does to a score, or why that cannot be said.

    Each group of a judge that ``scores_groups`` is judged in the reverse of its order, in which
    it has the ``verdicts``.
    """
    if not getattr(judge, "scores_groups", False):
        return None, "the judge reads each episode by itself"
    everything = list(read_episodes(episodes))
    changes: list[float] = []
    later: list[float] = []
    # The very groups that it was asked for: a group's name may come again, of another agent.
    for places in Grouping.of_episodes(everything).groups:
        if len(places) < 2:
            continue
        group = [everything[place] for place in places]
        first = [verdicts[place] for place in places]
        second = score(judge, group[::-1])[::-1]
        for place, (before, after) in enumerate(zip(first, second, strict=True)):
            turned = len(group) - 1 - place
            if before.score is None or after.score is None or turned == place:
                continue
            change = after.score - before.score
            changes.append(abs(change))
            later.append(change if turned > place else -change)
    if not changes:
        return None, "no group has two episodes that were scored both ways"
    effect = Estimate(statistics.fmean(later), *mean_interval(later))
    return Order(len(changes), statistics.fmean(changes), effect), ""


def _set_repeat(judge: Any, number: int) -> None:
    if hasattr(judge, "repeat"):
        judge.repeat = number
    for member in getattr(judge, "members", ()):
        _set_repeat(member, number)
