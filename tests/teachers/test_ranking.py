"""AUC, Spearman and their intervals, against definitions counted out pair by pair."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovd_envs.statistics import wilson
from teachers.ranking import RESAMPLES, auc, auc_estimate, rank_estimates, roc, spearman

CASES = st.lists(
    st.tuples(st.sampled_from([0, 1.5, 2, 5, 5.25, 9]), st.booleans()), min_size=1, max_size=30
)


def by_pairs(scores, right):
    """The definition: a right one against a wrong one, a tie counted half."""
    pairs = [
        (a > b) + (a == b) / 2
        for a, one in zip(scores, right, strict=True)
        for b, other in zip(scores, right, strict=True)
        if one and not other
    ]
    return sum(pairs) / len(pairs) if pairs else None


def by_ranks(first, second):
    """Pearson's correlation of mean ranks, each counted out."""

    def ranks(values):
        return [
            sum(v < value for v in values) + (sum(v == value for v in values) + 1) / 2
            for value in values
        ]

    try:
        return statistics.correlation(ranks(first), ranks(second))
    except statistics.StatisticsError:
        return None


@given(CASES)
def test_auc_is_the_share_of_pairs_in_order(cases):
    scores, right = zip(*cases, strict=True)
    assert auc(scores, right) == pytest.approx(by_pairs(scores, right))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), min_size=2, max_size=30))
def test_spearman_is_the_correlation_of_ranks(cases):
    first, second = zip(*cases, strict=True)
    assert spearman(first, second) == pytest.approx(by_ranks(first, second), abs=1e-9)


def test_known_values():
    assert auc([1, 2, 3, 4], [False, False, True, True]) == 1
    assert auc([1, 2, 3, 4], [True, True, False, False]) == 0
    assert auc([5, 5, 5], [True, False, False]) == 0.5
    assert auc([1, 2], [True, True]) is None
    assert auc([], []) is None
    # Four values in the order 1, 3, 2, 4: 1 - 6 * 2 / (4 * 15).
    assert spearman([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)
    assert spearman([1, 1], [0, 1]) is None
    assert spearman([], []) is None


@given(CASES)
def test_the_area_under_the_curve_is_the_auc(cases):
    scores, right = zip(*cases, strict=True)
    points = roc(scores, right)
    area = auc(scores, right)
    if area is None:
        assert points == ()
        return
    assert points[0] == (0, 0)
    assert points[-1] == (1, 1)
    assert np.trapezoid([y for _, y in points], [x for x, _ in points]) == pytest.approx(area)


def test_a_long_curve_is_thinned_and_keeps_its_ends():
    points = roc([float(i) for i in range(1001)], [i % 2 == 0 for i in range(1001)])
    assert len(points) <= 202
    assert (points[0], points[-1]) == ((0, 0), (1, 1))


def test_the_interval_of_independent_episodes_is_that_of_theory():
    rng = np.random.default_rng(1)
    right = rng.random(400) < 0.5
    scores = np.clip(rng.normal(4 + 1.5 * right, 1.5), 0, 9)
    found = auc_estimate(scores, right, [str(i) for i in range(400)])
    # Hanley and McNeil 1982 for the standard error of an AUC.
    a, n, m = found.value, right.sum(), (~right).sum()
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    error = math.sqrt((a * (1 - a) + (n - 1) * (q1 - a * a) + (m - 1) * (q2 - a * a)) / (n * m))
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_the_interval_grows_where_episodes_of_a_task_are_alike():
    rng = np.random.default_rng(2)
    right = np.repeat(rng.random(40) < 0.5, 10)
    scores = np.repeat(np.clip(rng.normal(4, 2, 40), 0, 9), 10) + right
    alone = auc_estimate(scores, right, [str(i) for i in range(400)])
    together = auc_estimate(scores, right, [str(i // 10) for i in range(400)])
    assert alone.value == together.value
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_the_same_numbers_every_time():
    scores, right, tasks = [1, 5, 7, 3, 8], [False, True, False, False, True], list("abcde")
    first = rank_estimates(scores, right, right, tasks)
    assert first == rank_estimates(scores, right, right, tasks)
    assert RESAMPLES == 2000


def test_perfect_scores_have_no_interval_of_no_width():
    right = [True] * 4 + [False] * 8
    scores = [9] * 4 + [0] * 8
    tasks = [str(i) for i in range(12)]
    area, correlation = rank_estimates(scores, right, right, tasks)
    assert (area.value, area.low, area.high) == (1, wilson(4, 4)[0], 1)
    assert correlation.value == pytest.approx(1)
    assert correlation.low == pytest.approx(2 * wilson(12, 12)[0] - 1)
    upside_down, _ = rank_estimates([-s for s in scores], right, right, tasks)
    assert (upside_down.low, upside_down.high) == (0, wilson(0, 4)[1])


def test_few_right_ones_leave_a_wide_interval():
    # One right task among 60: its place is one draw, whatever the other 59 are.
    scores = [7.0, *(i % 10 for i in range(59))]
    found = auc_estimate(scores, [True] + [False] * 59, [str(i) for i in range(60)])
    assert found.low < 0.5 < found.high
    assert (found.low, found.high) == pytest.approx(wilson(found.value, 1))


def test_nothing_to_rank():
    assert rank_estimates([], [], [], []) == (None, None)
    assert auc_estimate([3, 4], [True, True], ["a", "b"]) is None
