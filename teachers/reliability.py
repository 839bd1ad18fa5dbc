"""How far a judge can be trusted: its verdicts against the outcome of the same episodes."""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from agents.episode import Episode
from teachers.acceptance import DEFAULT_THETA, THETAS, Confusion, confusion_at, share, suggest
from teachers.calibration import Bin, Distribution, by_score, distribution_of
from teachers.ranking import Estimate, auc_estimate, rank_estimates, roc
from teachers.verdict import Verdict

#: Kinds of error that are told apart.
_ERROR_KINDS = 12


@dataclass(frozen=True, slots=True)
class Judged:
    """What reliability needs of an episode, and the verdict on it."""

    task: str
    kind: str | None
    """Of the task: "kind" or else "level" in its metadata."""
    reward: float
    verdict: Verdict

    @property
    def right(self) -> bool:
        """Whether the task was solved fully (reward 1), as ``ovd eval`` counts."""
        return self.reward >= 1

    @classmethod
    def of(cls, episode: Episode, verdict: Verdict) -> Judged:
        """An episode beside its verdict."""
        metadata = episode.task.metadata
        kind = metadata.get("kind", metadata.get("level"))
        shown = str(kind) if isinstance(kind, str | int) else None
        return cls(episode.task.id, shown, episode.reward, verdict)


@dataclass(frozen=True, slots=True)
class Kind:
    """The verdicts on the tasks of one kind."""

    name: str
    episodes: int
    errors: int
    right: int
    """Right ones among the scored."""
    mean_score: float | None
    auc: Estimate | None


@dataclass(frozen=True, slots=True)
class Repeats:
    """The same question, asked several times."""

    times: int
    episodes: int
    """Episodes with at least two scores."""
    variance: float
    """Mean variance of an episode's scores (ddof 1)."""
    largest: float
    """The largest difference between two scores of one episode."""
    flips: float
    """Share of the episodes that theta accepts in one run and rejects in another."""
    errors: int
    """Failures in all runs together."""

    @property
    def deviation(self) -> float:
        """Standard deviation of a score, in points."""
        return math.sqrt(self.variance)


@dataclass(frozen=True, slots=True)
class Order:
    """Groups judged in the given order and in the reverse."""

    episodes: int
    change: float
    """Mean absolute change of a score, in points."""
    later: Estimate
    """Mean of (score in the later place less score in the earlier one), in points."""


@dataclass(frozen=True, slots=True)
class Reliability:
    """What is known of a judge from episodes whose outcome is known."""

    judge: str
    episodes: int
    scored: int
    right: int
    """Right ones among the scored."""
    auc: Estimate | None
    spearman: Estimate | None
    roc: tuple[tuple[float, float], ...]
    """(share of the wrong accepted, share of the right accepted) as theta falls."""
    theta: float
    """At which ``repeats.flips`` is counted."""
    confusion: tuple[Confusion, ...]
    suggested: int | None
    suggestion: str
    """Why this theta, or why none."""
    by_score: tuple[Bin, ...]
    """By the score's whole number."""
    distribution: Distribution | None
    kinds: tuple[Kind, ...]
    errors: Estimate
    """Share of the episodes on which the judge failed."""
    error_kinds: tuple[tuple[str, int], ...]
    failed_right: Estimate | None
    """Share of right ones among the episodes on which the judge failed."""
    repeats: Repeats | None = None
    order: Order | None = None
    order_skipped: str = ""
    """Why there is no ``order``."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        data = asdict(self)
        data["confusion"] = [row.to_dict() for row in self.confusion]
        data["error_kinds"] = [{"error": text, "n": n} for text, n in self.error_kinds]
        if self.repeats is not None:
            data["repeats"]["deviation"] = self.repeats.deviation
        return data


def reliability(
    judge: str,
    judged: Sequence[Judged],
    *,
    theta: float = DEFAULT_THETA,
    precision: float | None = None,
    repeats: Sequence[Sequence[Verdict]] = (),
    order: Order | None = None,
    order_skipped: str = "",
) -> Reliability:
    """Measure ``judge`` on episodes with known outcomes (at least one).

    ``precision`` asks for the smallest theta at which so large a share of the accepted is right;
    without it the theta with the largest J of Youden is suggested. ``repeats`` are all runs of
    the same question, each with one verdict for every episode in their order.
    """
    scored = [one for one in judged if not one.verdict.failed]
    failed = [one for one in judged if one.verdict.failed]
    scores = [_score(one) for one in scored]
    right = [one.right for one in scored]
    area, correlation = rank_estimates(
        scores, [one.reward for one in scored], right, [one.task for one in scored]
    )
    confusion = tuple(confusion_at(theta, scores, right) for theta in THETAS)
    suggested, why = suggest(confusion, precision)
    if suggested is not None and area is not None and area.low <= 0.5 <= area.high:
        why += "; but the interval of the AUC holds 0.5: it may be guessing"
    errors = share(len(failed), len(judged))
    assert errors is not None, "there is at least one episode"
    return Reliability(
        judge=judge,
        episodes=len(judged),
        scored=len(scored),
        right=sum(right),
        auc=area,
        spearman=correlation,
        roc=roc(scores, right),
        theta=theta,
        confusion=confusion,
        suggested=suggested,
        suggestion=why,
        by_score=by_score([(_score(one), one.reward) for one in scored]),
        distribution=distribution_of([(one.verdict, one.reward) for one in scored]),
        kinds=_kinds(judged),
        errors=errors,
        error_kinds=error_kinds(one.verdict.error or "" for one in failed),
        failed_right=share(sum(one.right for one in failed), len(failed)),
        repeats=_repeats(repeats, theta) if len(repeats) > 1 else None,
        order=order,
        order_skipped=order_skipped,
    )


def error_kinds(errors: Iterable[str]) -> tuple[tuple[str, int], ...]:
    """How often each kind of error came: their texts without numbers and quotations."""
    return tuple(Counter(_kind_of_error(error) for error in errors).most_common(_ERROR_KINDS))


def _kind_of_error(error: str) -> str:
    # First what is quoted, for it may hold numbers; a quote within a word is an apostrophe.
    bare = re.sub(r"(?<!\w)(['\"]).*?\1(?!\w)", "…", error)
    bare = re.sub(r"\d+(?:[.,]\d+)*", "#", bare)
    return bare if len(bare) <= 100 else f"{bare[:99]}…"


def _score(one: Judged) -> float:
    assert one.verdict.score is not None
    return one.verdict.score


def _kinds(judged: Sequence[Judged]) -> tuple[Kind, ...]:
    by_name: dict[str, list[Judged]] = {}
    for one in judged:
        if one.kind is not None:
            by_name.setdefault(one.kind, []).append(one)
    found = []
    for name, members in by_name.items():
        scored = [one for one in members if not one.verdict.failed]
        scores, right = [_score(one) for one in scored], [one.right for one in scored]
        found.append(
            Kind(
                name=name,
                episodes=len(members),
                errors=len(members) - len(scored),
                right=sum(right),
                mean_score=statistics.fmean(scores) if scores else None,
                auc=auc_estimate(scores, right, [one.task for one in scored]),
            )
        )
    return tuple(sorted(found, key=lambda kind: (-kind.episodes, kind.name)))


def _repeats(runs: Sequence[Sequence[Verdict]], theta: float) -> Repeats:
    variances: list[float] = []
    largest = 0.0
    flips = errors = 0
    for verdicts in zip(*runs, strict=True):
        scores = [verdict.score for verdict in verdicts if verdict.score is not None]
        errors += len(verdicts) - len(scores)
        if len(scores) < 2:
            continue
        variances.append(statistics.variance(scores))
        largest = max(largest, max(scores) - min(scores))
        flips += len({score >= theta for score in scores}) > 1
    n = len(variances)
    return Repeats(
        times=len(runs),
        episodes=n,
        variance=statistics.fmean(variances) if n else 0.0,
        largest=largest,
        flips=flips / n if n else 0.0,
        errors=errors,
    )
