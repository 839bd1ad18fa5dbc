"""What a judge's scores, and its probabilities of the ten digits, say of the reward that came."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ovd_envs.statistics import mean_interval, wilson
from teachers.ranking import Estimate
from teachers.verdict import MAX_SCORE, Verdict


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


def by_score(pairs: Sequence[tuple[float, float]]) -> tuple[Bin, ...]:
    """(score, reward) pairs by the score's whole number."""
    digits: dict[int, list[tuple[float, float]]] = {}
    for score, reward in pairs:
        digits.setdefault(int(score), []).append((score, reward))
    return tuple(_bin(digits[digit]) for digit in sorted(digits))


def distribution_of(judged: Sequence[tuple[Verdict, float]]) -> Distribution | None:
    """Of (verdict, reward); ``None`` where no verdict has probabilities of the digits."""
    expected: list[tuple[float, float]] = []
    outside: list[float] = []
    entropy: list[float] = []
    for verdict, reward in judged:
        probabilities, bits = verdict.distribution, verdict.entropy
        if probabilities is None or bits is None or verdict.outside is None:
            continue
        mean = math.fsum(digit * p for digit, p in enumerate(probabilities))
        mean /= math.fsum(probabilities)
        # Rounded, for equal expectations differ in their last bits.
        expected.append((min(round(mean, 9), float(MAX_SCORE)), reward))
        outside.append(verdict.outside)
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


def _bin(members: Sequence[tuple[float, float]]) -> Bin:
    scores = [score for score, _ in members]
    outcome = _mean([reward for _, reward in members])
    return Bin(min(scores), max(scores), len(scores), statistics.fmean(scores), outcome)


def _mean(values: Sequence[float]) -> Estimate:
    if all(value in (0.0, 1.0) for value in values):
        total = round(math.fsum(values))
        return Estimate(total / len(values), *wilson(total, len(values)))
    return Estimate(statistics.fmean(values), *mean_interval(values))
