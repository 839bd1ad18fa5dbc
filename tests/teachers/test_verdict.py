import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovd_envs.errors import OVDError
from teachers import Verdict, VerdictError


def test_a_failed_judge_is_neither_accepted_nor_rejected():
    failed = Verdict("e", "j", None, error="no reply")
    assert failed.failed
    for theta in (0, 7, 10):
        with pytest.raises(VerdictError, match="no reply"):
            failed.accepted(theta)


@pytest.mark.parametrize("score", [0, 6.999, 7, 9])
def test_accepted_is_at_least_theta(score):
    verdict = Verdict("e", "j", score)
    assert verdict.accepted(7) is (score >= 7)
    assert verdict.accepted(0)
    assert not verdict.accepted(10)


@pytest.mark.parametrize(
    "fields",
    [
        {"score": None},
        {"score": 3, "error": "both"},
        {"score": None, "error": " "},
        {"score": -0.001},
        {"score": 9.001},
        {"score": math.nan},
        {"score": math.inf},
        {"score": True},
        {"score": "7"},
        {"score": 5, "distribution": (0.1,) * 9},
        {"score": 5, "distribution": (0.2,) * 10},
        {"score": 5, "distribution": (-0.1, *[0.1] * 9)},
        {"score": 5, "distribution": (math.nan, *[0.1] * 9)},
    ],
)
def test_nonsense_is_refused(fields):
    with pytest.raises(OVDError, match="e"):
        Verdict("e", "j", **fields)


verdicts = st.one_of(
    st.builds(
        Verdict,
        episode=st.text(),
        judge=st.text(),
        score=st.floats(0, 9),
        reason=st.text(),
        distribution=st.none() | st.tuples(*[st.floats(0, 0.1)] * 10),
        seconds=st.floats(0, 1e6),
        prompt_tokens=st.integers(0, 10**9),
    ),
    st.builds(
        Verdict, st.text(), st.text(), st.none(), error=st.text(min_size=1).filter(str.strip)
    ),
)


@given(verdicts)
def test_json_and_back(verdict):
    assert Verdict.from_dict(json.loads(json.dumps(verdict.to_dict()))) == verdict


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"episode": "e", "judge": "j"}, "misses score"),
        ({"episode": "e", "judge": "j", "score": 3, "scroe": 1}, "scroe"),
        ({"episode": 1, "judge": "j", "score": 3}, "episode must be text"),
        ({"episode": "e", "judge": "j", "score": 3, "distribution": ["x"]}, "distribution"),
        ({"episode": "e", "judge": "j", "score": None, "error": 5}, "error must be text"),
    ],
)
def test_a_row_that_is_no_verdict(row, told):
    with pytest.raises(VerdictError, match=told):
        Verdict.from_dict(row)


@pytest.mark.parametrize(
    ("distribution", "entropy", "outside"),
    [
        (None, None, None),
        ((0.0,) * 10, None, 1),
        ((0.0,) * 9 + (0.25,), 0, 0.75),
        ((0.1,) * 10, math.log2(10), 0),
        ((0.2, 0.2) + (0.0,) * 8, 1, 0.6),
    ],
)
def test_how_undecided_the_judge_is(distribution, entropy, outside):
    verdict = Verdict("e", "j", 5, distribution=distribution)
    assert verdict.entropy == pytest.approx(entropy)
    assert verdict.outside == pytest.approx(outside)


@given(st.lists(st.floats(0, 1), min_size=10, max_size=10).filter(lambda p: sum(p) > 0))
def test_entropy_is_between_one_digit_and_ten_alike(weights):
    total = sum(weights)
    verdict = Verdict("e", "j", 5, distribution=tuple(p / total for p in weights))
    assert verdict.entropy is None or -1e-12 <= verdict.entropy <= math.log2(10) + 1e-9
