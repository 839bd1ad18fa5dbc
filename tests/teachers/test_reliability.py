"""What is measured of a judge, on scores whose numbers are known."""

import json
import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovd_envs.statistics import wilson
from teachers import Verdict
from teachers.acceptance import Confusion, suggest
from teachers.calibration import deciles_of
from teachers.reliability import Judged, error_kinds, reliability
from tests.teachers.conftest import make_episode


@pytest.fixture(scope="module", autouse=True)
def few_resamples():
    """The intervals are tested in test_ranking.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("teachers.ranking.RESAMPLES", 40)
        yield


def judged(score, right, *, task=None, kind=None, error=None, **fields):
    verdict = Verdict(
        "e", "j", score, error=error or (None if score is not None else "no reply"), **fields
    )
    judged.count += 1
    return Judged(task or f"t{judged.count}", kind, float(right), verdict)


judged.count = 0

#: Right: 9, 8, 8, 4; wrong: 8, 3, 1, 0. Of 16 pairs 13 are in order and two are ties.
KNOWN = [(9, 1), (8, 1), (8, 1), (4, 1), (8, 0), (3, 0), (1, 0), (0, 0)]


def known():
    return reliability("j", [judged(*one) for one in KNOWN])


def test_the_known_case():
    found = known()
    assert found.auc.value == pytest.approx(14 / 16)
    assert (found.episodes, found.scored, found.right) == (8, 8, 4)
    assert [row.theta for row in found.confusion] == list(range(11))
    assert found.confusion[0] == Confusion(0, 4, 4, 0, 0)
    assert found.confusion[4] == Confusion(4, 4, 1, 0, 3)
    assert found.confusion[7] == Confusion(7, 3, 1, 1, 3)
    assert found.confusion[9] == Confusion(9, 1, 0, 3, 4)
    assert found.confusion[10] == Confusion(10, 0, 0, 4, 4)
    assert found.confusion[10].precision is None
    seventh = found.confusion[7]
    assert (seventh.precision.value, seventh.recall, seventh.false_accepts) == (0.75, 0.75, 0.25)
    assert (seventh.precision.low, seventh.precision.high) == wilson(3, 4)
    assert found.suggested == 4
    assert "0.75" in found.suggestion


def test_a_score_at_theta_is_accepted():
    found = reliability("j", [judged(7.0, True), judged(6.999, False)])
    assert found.confusion[7] == Confusion(7, 1, 0, 0, 1)
    assert found.suggested == 7


def test_of_equal_thetas_the_nearest_to_seven():
    found = reliability("j", [judged(9, True), judged(5, False)])
    assert found.suggested == 7
    assert "as good: 6, 8, 9" in found.suggestion
    assert reliability("j", [judged(4, True), judged(1, False)]).suggested == 4
    assert reliability("j", [judged(9, True), judged(8, False)]).suggested == 9


def test_the_smallest_theta_of_a_precision():
    rows = known().confusion
    assert suggest(rows, 0.5)[0] == 0
    assert suggest(rows, 0.75)[0] == 4  # 4 of 5
    assert suggest(rows, 0.9) == (9, "the smallest theta that reaches precision 0.9: "
                                     "1 of 1 accepted are right")  # fmt: skip
    none = reliability("j", [judged(9, False)], precision=0.5)
    assert (none.suggested, none.suggestion) == (None, "no theta reaches precision 0.5")


def test_no_theta_where_there_is_none():
    assert "right and wrong episodes" in reliability("j", [judged(9, True)]).suggestion
    blind = reliability("j", [judged(5, True), judged(5, False)])
    assert blind.suggested is None
    assert blind.auc.value == 0.5
    upside_down = reliability("j", [judged(1, True), judged(8, False)])
    assert upside_down.suggested is None
    assert upside_down.auc.value == 0


def test_a_suggestion_of_a_judge_that_may_be_guessing_says_so():
    assert "may be guessing" in known().suggestion
    sure = reliability("j", [judged(9 - 4 * (i % 2), i % 2 == 0) for i in range(40)])
    assert "guessing" not in sure.suggestion


def test_a_failure_is_counted_and_never_a_score():
    cases = [judged(*one) for one in KNOWN]
    failed = [judged(None, True, error=f"HTTP 50{i}: 'x{i}'") for i in range(3)]
    found = reliability("j", cases + failed)
    assert found.auc == known().auc  # the same tasks in number: the same resamples
    assert found.confusion == known().confusion
    assert (found.errors.value, found.errors.low) == (3 / 11, wilson(3, 11)[0])
    assert found.error_kinds == (("HTTP #: …", 3),)
    assert found.failed_right.value == 1
    nothing = reliability("j", failed)
    assert (nothing.auc, nothing.spearman, nothing.suggested, nothing.by_score) == (
        None,
        None,
        None,
        (),
    )
    json.dumps(nothing.to_dict(), allow_nan=False)


def test_kinds_of_error():
    assert error_kinds(["it's 3.5 of 9", "it's 14 of 9", "'id 3' is not \"id 4\"", "x" * 300]) == (
        ("it's # of #", 2),
        ("… is not …", 1),
        ("x" * 99 + "…", 1),
    )


@given(
    st.lists(
        st.tuples(st.none() | st.floats(0, 9), st.sampled_from([0.0, 0.5, 1.0])),
        min_size=1,
        max_size=25,
    )
)
def test_the_counts_add_up(cases):
    found = reliability("j", [judged(*case) for case in cases])
    scores = [s for s, _ in cases if s is not None]
    assert found.scored == len(scores)
    for row in found.confusion:
        assert row.accepted_right + row.accepted_wrong == sum(s >= row.theta for s in scores)
        assert row.accepted_right + row.rejected_right == found.right
        assert row.rejected_right + row.rejected_wrong == sum(s < row.theta for s in scores)
    assert sum(one.n for one in found.by_score) == len(scores)
    json.dumps(found.to_dict(), allow_nan=False)


def peaked(digit, mass=1.0):
    """Nearly all on one digit, the rest on its neighbour below."""
    values = [0.0] * 10
    values[digit], values[max(digit - 1, 0)] = 0.9 * mass, 0.1 * mass
    return tuple(values)


def test_the_distribution():
    cases = [
        judged(9, True, distribution=peaked(9, mass=0.8)),
        judged(9, True, distribution=peaked(9, mass=0.6)),
        judged(1, False, distribution=peaked(1)),
        judged(5, False),  # without one: not counted
    ]
    found = reliability("j", cases).distribution
    assert found.n == 3
    assert found.outside == pytest.approx(0.2)
    assert found.most_outside == pytest.approx(0.4)
    entropy = -(0.9 * math.log2(0.9) + 0.1 * math.log2(0.1))
    assert found.entropy == pytest.approx(entropy)
    assert [(one.n, one.outcome.value) for one in found.deciles] == [(1, 0), (2, 1)]
    # Expected over the ten alone: 8.9 with reward 1, and 0.9 with reward 0.
    assert [one.score for one in found.deciles] == pytest.approx([0.9, 8.9])
    assert found.calibration_error == pytest.approx((0.9 / 9 + 2 * 0.1 / 9) / 3)
    assert reliability("j", [judged(3, True)]).distribution is None


@given(st.lists(st.tuples(st.sampled_from([1, 2, 3.5, 8]) | st.floats(0, 9), st.just(1.0))))
def test_deciles_keep_equal_scores_together(pairs):
    bins = deciles_of(pairs)
    assert sum(one.n for one in bins) == len(pairs)
    assert len(bins) <= 10
    assert all(one.high < other.low for one, other in pairwise(bins))


def test_deciles_are_of_like_size():
    assert [one.n for one in deciles_of([(i / 20, 0.5) for i in range(100)])] == [10] * 10


def test_by_kind_of_task():
    cases = [
        judged(9, True, kind="river"),
        judged(2, False, kind="river"),
        judged(None, True, kind="river"),
        judged(5, True, kind="spouse"),
        judged(5, True),
    ]
    river, spouse = reliability("j", cases).kinds
    assert (river.name, river.episodes, river.errors, river.right, river.mean_score) == (
        "river",
        3,
        1,
        1,
        5.5,
    )
    assert river.auc.value == 1
    assert spouse.auc is None


def test_the_kind_is_read_from_the_task():
    def kind(**metadata):
        episode = make_episode("a", metadata=metadata)
        return Judged.of(episode, Verdict(episode.id, "j", 1)).kind

    assert kind(kind="river", level="x") == "river"
    assert kind(level=3) == "3"
    assert kind() is None
    assert kind(kind=["a"]) is None


def test_right_is_a_full_reward():
    def right(reward):
        return Judged("t", None, reward, Verdict("e", "j", 1)).right

    assert [right(reward) for reward in (0.0, 0.99, 1.0)] == [False, False, True]


def test_repeats():
    def run(*scores):
        return [Verdict("e", "j", s, error=None if s is not None else "x") for s in scores]

    runs = [run(6, 3, None, 9), run(8, 3, 5, 9)]
    found = reliability("j", [judged(1, True)] * 4, repeats=runs).repeats
    assert (found.times, found.episodes, found.errors) == (2, 3, 1)
    assert found.variance == pytest.approx(2 / 3)  # 2, 0 and 0
    assert found.deviation == pytest.approx(math.sqrt(2 / 3))
    assert found.largest == 2
    assert found.flips == pytest.approx(1 / 3)  # 6 and 8 stand on two sides of 7
    assert reliability("j", [judged(1, True)], theta=5, repeats=[run(1)]).repeats is None
