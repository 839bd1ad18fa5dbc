"""How well scores put right before wrong: AUC and Spearman's rank correlation, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ovd_envs.statistics import wilson

Floats = NDArray[np.float64]

#: Resamples of the bootstrap, and the seed of their random numbers.
RESAMPLES = 2000
SEED = 0

#: Clusters below which the bootstrap claims to know too much.
FEW = 10


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float


def auc(scores: Sequence[float], right: Sequence[bool]) -> float | None:
    """The chance that a right episode scores above a wrong one, a tie counted half.

    The area under the ROC curve (Mann and Whitney 1947). ``None`` without both kinds.
    """
    order = _Order(scores)
    return _number(order.auc(np.ones(len(scores)), np.asarray(right, dtype=bool)))


def spearman(scores: Sequence[float], outcomes: Sequence[float]) -> float | None:
    """Spearman's rank correlation, ties by their mean rank. ``None`` where either is constant."""
    return _number(_spearman(np.ones(len(scores)), _Order(scores), _Order(outcomes)))


def roc(scores: Sequence[float], right: Sequence[bool]) -> tuple[tuple[float, float], ...]:
    """Points (share of the wrong accepted, share of the right accepted), from nothing accepted to
    everything, one for each threshold that differs; at most some 200. Empty without both kinds.
    """
    if not any(right) or all(right):
        return ()
    order = _Order(scores)
    is_right = np.asarray(right, dtype=bool)
    good, bad = (np.cumsum(order.sums(kind.astype(float))[::-1]) for kind in (is_right, ~is_right))
    points = [(0.0, 0.0), *zip((bad / bad[-1]).tolist(), (good / good[-1]).tolist(), strict=True)]
    step = -(-len(points) // 200)
    return (*points[:-1:step], points[-1])


def rank_estimates(
    scores: Sequence[float],
    outcomes: Sequence[float],
    right: Sequence[bool],
    clusters: Sequence[str],
) -> tuple[Estimate | None, Estimate | None]:
    """(AUC, Spearman) with intervals; ``None`` where there is none.

    The interval is the percentile bootstrap over whole clusters (the tasks: episodes of one task
    are not independent), with 2000 resamples of seed 0. Where scores part right and wrong perfectly
    no resample differs, and where the rarer kind has fewer than ten clusters resamples differ too
    little; there it is Wilson's with as many trials as the rarer kind has clusters, for the
    variance of an AUC is at most AUC (1 - AUC) / that number (Birnbaum and Klose 1957).
    Spearman's, from -1 to 1, goes by the number of all clusters.
    """
    by_score, by_outcome = _Order(scores), _Order(outcomes)

    def correlation(weights: Floats) -> float:
        return _spearman(weights, by_score, by_outcome)

    return (
        auc_estimate(scores, right, clusters),
        _estimate(correlation, _Clusters(clusters), least=-1.0, trials=len(set(clusters))),
    )


def auc_estimate(
    scores: Sequence[float], right: Sequence[bool], clusters: Sequence[str]
) -> Estimate | None:
    """``auc`` with its interval: see ``rank_estimates``."""
    order, drawn = _Order(scores), _Clusters(clusters)
    is_right = np.asarray(right, dtype=bool)
    rarer = min(len(set(drawn.members[is_right])), len(set(drawn.members[~is_right])))
    return _estimate(lambda w: order.auc(w, is_right), drawn, least=0.0, trials=rarer)


class _Clusters:
    """Which episodes belong together, and the bootstrap over such clusters."""

    def __init__(self, names: Sequence[str]) -> None:
        distinct, members = np.unique(np.asarray(names, dtype=str), return_inverse=True)
        self.number = len(distinct)
        self.members: NDArray[np.intp] = members

    def resamples(self) -> Iterator[Floats]:
        """How often each episode is drawn, for every resample."""
        stream = np.random.default_rng(SEED)
        for _ in range(RESAMPLES):
            drawn = stream.integers(self.number, size=self.number)
            yield np.bincount(drawn, minlength=self.number).astype(float)[self.members]


class _Order:
    """Values in ascending order, equal ones together: what every resample shares."""

    def __init__(self, values: Sequence[float]) -> None:
        array = np.asarray(values, dtype=float)
        self.order = np.argsort(array, kind="stable")
        ordered = array[self.order]
        self.starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        self.steps = np.cumsum(np.r_[0, ordered[1:] != ordered[:-1]]) if len(array) else self.starts

    def sums(self, weights: Floats) -> Floats:
        """The weight on each distinct value."""
        return np.add.reduceat(weights[self.order], self.starts)

    def auc(self, weights: Floats, right: NDArray[np.bool_]) -> float:
        """NaN where there is no right episode, or no wrong one."""
        if not len(weights):
            return float("nan")
        good, bad = self.sums(weights * right), self.sums(weights * ~right)
        pairs = good.sum() * bad.sum()
        below = np.cumsum(bad) - bad / 2
        return float((good * below).sum() / pairs) if pairs > 0 else float("nan")

    def ranks(self, weights: Floats) -> Floats:
        """The mean rank of each episode, where an episode of weight w stands there w times."""
        sums = self.sums(weights)
        middle = np.cumsum(sums) - (sums - 1) / 2
        ranks = np.empty(len(weights))
        ranks[self.order] = middle[self.steps]
        return ranks


def _spearman(weights: Floats, first: _Order, second: _Order) -> float:
    if not len(weights):
        return float("nan")
    a, b = first.ranks(weights), second.ranks(weights)
    a, b = a - np.average(a, weights=weights), b - np.average(b, weights=weights)
    scale = np.sqrt((weights * a * a).sum() * (weights * b * b).sum())
    # A constant one leaves nothing but rounding.
    if scale <= 1e-9 * weights.sum():
        return float("nan")
    return float(np.clip((weights * a * b).sum() / scale, -1, 1))


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _estimate(
    statistic: Callable[[Floats], float], clusters: _Clusters, *, least: float, trials: int
) -> Estimate | None:
    """Of a statistic from ``least`` to 1; ``trials`` as in ``rank_estimates``."""
    value = statistic(np.ones(len(clusters.members)))
    if np.isnan(value):
        return None
    draws = np.asarray([statistic(weights) for weights in clusters.resamples()])
    known = draws[~np.isnan(draws)]
    low, high = (float(q) for q in np.quantile(known, [0.025, 0.975]))
    at_the_edge = min(value - least, 1 - value) < 1e-9
    if trials < FEW or (at_the_edge and high - low < 1e-9):
        share = min(max((value - least) / (1 - least), 0.0), 1.0)
        low, high = (least + (1 - least) * edge for edge in wilson(share * trials, trials))
    return Estimate(value, min(low, value), max(high, value))
