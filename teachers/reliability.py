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
from ovd_envs.statistics import mean_interval, wilson
from teachers.ranking import Estimate, auc_estimate, rank_estimates, roc
from teachers.verdict import MAX_SCORE, Verdict

#: Thresholds of acceptance that are looked at: 0 accepts everything, 10 nothing.
THETAS = range(MAX_SCORE + 2)

#: Theta where nothing else is said; of thresholds that do equally well the nearest is suggested.
DEFAULT_THETA = 7

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
class Confusion:
    """Verdicts against outcomes where an episode is accepted from ``theta`` on."""

    theta: int
    accepted_right: int
    accepted_wrong: int
    rejected_right: int
    rejected_wrong: int

    @property
    def precision(self) -> Estimate | None:
        """Share of the accepted that is right; Wilson's interval."""
        return _share(self.accepted_right, self.accepted_right + self.accepted_wrong)

    @property
    def recall(self) -> float | None:
        """Share of the right that is accepted."""
        right = self.accepted_right + self.rejected_right
        return self.accepted_right / right if right else None

    @property
    def false_accepts(self) -> float | None:
        """Share of the wrong that is accepted."""
        wrong = self.accepted_wrong + self.rejected_wrong
        return self.accepted_wrong / wrong if wrong else None

    @property
    def youden(self) -> float | None:
        """Youden's J: recall less false accepts; 0 for a judge that guesses, 1 at best."""
        if self.recall is None or self.false_accepts is None:
            return None
        return self.recall - self.false_accepts

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, the derived numbers among it."""
        precision = self.precision
        return {
            **asdict(self),
            "precision": None if precision is None else asdict(precision),
            "recall": self.recall,
            "false_accepts": self.false_accepts,
            "youden": self.youden,
        }


@dataclass(frozen=True, slots=True)
class Bin:
    """Episodes with similar scores: what the judge expected of them, and what came."""

    low: float
    """The smallest and the largest score among them."""
    high: float
    n: int
    score: float
    """Mean score."""
    outcome: Estimate
    """Mean reward; the interval is Wilson's where rewards are 0 or 1."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """Of the verdicts that have the probabilities of the ten digits."""

    n: int
    deciles: tuple[Bin, ...]
    """By expected score, ten groups of like size; equal scores stay together."""
    calibration_error: float
    """Mean distance of expected score / 9 from the mean reward, over the deciles by size."""
    outside: float
    """Mean probability outside the ten digits."""
    most_outside: float
    entropy: float
    """Mean entropy over the ten digits, in bits (3.32 at most)."""


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
    confusion = tuple(_confusion(theta, scores, right) for theta in THETAS)
    suggested, why = suggest(confusion, precision)
    if suggested is not None and area is not None and area.low <= 0.5 <= area.high:
        why += "; but the interval of the AUC holds 0.5: it may be guessing"
    errors = _share(len(failed), len(judged))
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
        by_score=_by_score(scored),
        distribution=_distribution(scored),
        kinds=_kinds(judged),
        errors=errors,
        error_kinds=error_kinds(one.verdict.error or "" for one in failed),
        failed_right=_share(sum(one.right for one in failed), len(failed)),
        repeats=_repeats(repeats, theta) if len(repeats) > 1 else None,
        order=order,
        order_skipped=order_skipped,
    )


def suggest(confusion: Sequence[Confusion], precision: float | None) -> tuple[int | None, str]:
    """(theta, why); theta is ``None`` where no threshold does what is asked."""
    if precision is not None:
        for row in confusion:
            found = row.precision
            if found is not None and found.value >= precision:
                return row.theta, (
                    f"the smallest theta that reaches precision {precision:g}: "
                    f"{row.accepted_right} of {row.accepted_right + row.accepted_wrong} accepted "
                    "are right"
                )
        return None, f"no theta reaches precision {precision:g}"
    known = [(row.youden, row.theta) for row in confusion if row.youden is not None]
    if not known:
        return None, "it takes right and wrong episodes with a score to tell"
    best = max(youden for youden, _ in known)
    if best <= 1e-9:
        return None, "no theta accepts right episodes more often than wrong ones"
    equals = [theta for youden, theta in known if youden >= best - 1e-9]
    theta = min(equals, key=lambda t: (abs(t - DEFAULT_THETA), t))
    beside = ", ".join(str(t) for t in equals if t != theta)
    return theta, f"the largest J of Youden, {best:.2f}" + (
        f" (as good: {beside}; the nearest to {DEFAULT_THETA} is taken)" if beside else ""
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


def _share(count: int, n: int) -> Estimate | None:
    return Estimate(count / n, *wilson(count, n)) if n else None


def _mean(values: Sequence[float]) -> Estimate:
    if all(value in (0.0, 1.0) for value in values):
        total = round(math.fsum(values))
        return Estimate(total / len(values), *wilson(total, len(values)))
    return Estimate(statistics.fmean(values), *mean_interval(values))


def _confusion(theta: int, scores: Sequence[float], right: Sequence[bool]) -> Confusion:
    table = Counter(
        (score >= theta, is_right) for score, is_right in zip(scores, right, strict=True)
    )
    return Confusion(
        theta, table[True, True], table[True, False], table[False, True], table[False, False]
    )


def _bin(members: Sequence[tuple[float, float]]) -> Bin:
    scores = [score for score, _ in members]
    outcome = _mean([reward for _, reward in members])
    return Bin(min(scores), max(scores), len(scores), statistics.fmean(scores), outcome)


def _by_score(scored: Sequence[Judged]) -> tuple[Bin, ...]:
    digits: dict[int, list[tuple[float, float]]] = {}
    for one in scored:
        digits.setdefault(int(_score(one)), []).append((_score(one), one.reward))
    return tuple(_bin(digits[digit]) for digit in sorted(digits))


def _distribution(scored: Sequence[Judged]) -> Distribution | None:
    expected: list[tuple[float, float]] = []
    outside: list[float] = []
    entropy: list[float] = []
    for one in scored:
        probabilities, bits = one.verdict.distribution, one.verdict.entropy
        if probabilities is None or bits is None or one.verdict.outside is None:
            continue
        mean = math.fsum(digit * p for digit, p in enumerate(probabilities))
        mean /= math.fsum(probabilities)
        # Rounded, for equal expectations differ in their last bits.
        expected.append((min(round(mean, 9), float(MAX_SCORE)), one.reward))
        outside.append(one.verdict.outside)
        entropy.append(bits)
    if not expected:
        return None
    deciles = deciles_of(expected)
    distances = [one.n * abs(one.score / MAX_SCORE - one.outcome.value) for one in deciles]
    return Distribution(
        n=len(expected),
        deciles=deciles,
        calibration_error=math.fsum(distances) / len(expected),
        outside=statistics.fmean(outside),
        most_outside=max(outside),
        entropy=statistics.fmean(entropy),
    )


def deciles_of(pairs: Sequence[tuple[float, float]]) -> tuple[Bin, ...]:
    """(score, reward) pairs in at most ten groups of like size; equal scores stay together."""
    ordered = sorted(pairs)
    bins: list[Bin] = []
    start = 0
    for tenth in range(1, 11):
        end = max(round(tenth * len(ordered) / 10), start)
        while start < end < len(ordered) and ordered[end][0] == ordered[end - 1][0]:
            end += 1
        if end > start:
            bins.append(_bin(ordered[start:end]))
        start = end
    return tuple(bins)


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
