import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovd_envs.errors import OVDError
from teachers import (
    JudgeOutageError,
    JudgeStopError,
    Verdict,
    VerdictCache,
    make_judge,
    score,
)
from teachers.ensemble import EnsembleJudge
from tests.teachers.conftest import make_episode


class Says:
    """Gives each episode the score at its index; ``None`` is a failure."""

    def __init__(self, *scores, name="says"):
        self.name = name
        self.fingerprint = f"{name}/1"
        self.scores = scores

    def judge(self, episodes):
        return [
            Verdict(e.id, self.name, None, error="no reply")
            if (value := self.scores[e.index]) is None
            else Verdict(e.id, self.name, value, "so", prompt_tokens=3)
            for e in reversed(episodes)  # in any order: matched by id
        ]


class Breaks:
    name = "breaks"

    def judge(self, episodes):
        raise ConnectionError("down")


class Leaves(Says):
    """Is asked for two at a time, and stops at the episode of index ``at``."""

    batch_size = 2

    def __init__(self, *scores, at, why=JudgeOutageError, name="leaves"):
        super().__init__(*scores, name=name)
        self.at, self.why = at, why

    def judge(self, episodes):
        if any(e.index >= self.at for e in episodes):
            raise self.why("nobody answers")
        return super().judge(episodes)


def settled(judge, count):
    """The scores by place that came before ``judge`` stopped, and what stopped it."""
    found = {}
    with pytest.raises(JudgeStopError, match="nobody answers") as stopped:
        score(
            judge,
            [make_episode(f"a{i}", index=i) for i in range(count)],
            settled=lambda place, verdict: found.update({place: verdict.score}),
        )
    return found, stopped.type


def one(*members, **options):
    episodes = [make_episode(f"a{i}", index=i) for i in range(len(members[0]))]
    judge = EnsembleJudge([Says(*m, name=f"j{i}") for i, m in enumerate(members)], **options)
    return score(judge, episodes)


def test_mean_median_min_and_weights():
    members = [[9, 2], [6, 2], [0, 5]]
    assert [v.score for v in one(*members)] == [5, 3]
    assert [v.score for v in one(*members, reduce="median")] == [6, 2]
    assert [v.score for v in one(*members, reduce="min")] == [0, 2]
    assert [v.score for v in one(*members, weights=[2, 1, 1])] == [6, 2.75]


def test_the_members_verdicts_and_their_disagreement_are_kept():
    [verdict] = one([9], [6.5])
    assert [(p.judge, p.score, p.reason) for p in verdict.parts] == [
        ("j0", 9, "so"),
        ("j1", 6.5, "so"),
    ]
    assert verdict.disagreement == 2.5
    assert verdict.prompt_tokens == 6
    assert "j0 9 (so)" in verdict.reason
    assert Verdict.from_dict(json.loads(json.dumps(verdict.to_dict()))) == verdict
    assert one([9])[0].disagreement is None


def test_a_member_that_fails_is_never_a_zero():
    [verdict] = one([9], [None])
    assert verdict.failed
    assert verdict.error == "1 of 2 judges failed: j1 failed (no reply)"
    assert [part.score for part in verdict.parts] == [9, None]
    [verdict] = one([9], [None], [8], weights=[1, 5, 3], on_error="rest")
    assert verdict.score == 8.25
    assert "j1 failed (no reply)" in verdict.reason
    [verdict] = one([None], [None], on_error="rest")
    assert verdict.failed


def test_a_member_that_raises_fails_for_its_part_alone():
    judge = EnsembleJudge([Says(7), Breaks()], on_error="rest")
    [verdict] = score(judge, [make_episode("a")])
    assert verdict.score == 7
    assert "ConnectionError" in verdict.parts[1].error


@given(
    st.lists(st.floats(0, 9), min_size=1, max_size=6).flatmap(
        lambda scores: st.tuples(
            st.just(scores),
            st.lists(st.floats(1e-6, 1e6), min_size=len(scores), max_size=len(scores)),
        )
    )
)
def test_every_mean_lies_between_its_members(case):
    scores, weights = case
    [verdict] = one(*[[s] for s in scores], weights=weights)
    assert min(scores) - 1e-9 <= verdict.score <= max(scores) + 1e-9
    expected = math.fsum(s * w for s, w in zip(scores, weights, strict=True)) / math.fsum(weights)
    assert verdict.score == pytest.approx(expected)


def test_by_names_as_on_the_command_line_and_in_a_config():
    judge = make_judge("ensemble", judges="steps, outcome")
    assert [m.name for m in judge.members] == ["steps", "outcome"]
    judge = make_judge(
        "ensemble", judges=["steps", {"name": "ensemble", "judges": ["outcome"]}], weights=[1, 2]
    )
    assert [m.name for m in judge.members] == ["steps", "ensemble"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "judges: expected a list of judges"),
        ({"judges": [3]}, "judges, number 1: expected a judge's name"),
        ({"judges": ["steps", "stesp"]}, "judges, number 2: no judge 'stesp'; did you mean|did"),
        ({"judges": ["steps"], "reduce": "max"}, "reduce: expected one of mean, median, min"),
        ({"judges": ["steps"], "on_error": "zero"}, "on_error: expected one of fail, rest"),
        ({"judges": ["steps"], "weights": [1, 2]}, "weights: expected 1, one for each judge"),
        ({"judges": ["steps"], "weights": [0]}, "weights: expected a list of numbers above 0"),
        ({"judges": ["steps"], "weights": "1"}, "weights: expected a list of numbers above 0"),
        ({"judges": ["steps"], "weights": [1], "reduce": "min"}, "weights: expected none"),
        ({"judges": {"name": "steps"}}, "judges: expected a list"),
    ],
)
def test_bad_options(options, told):
    with pytest.raises(OVDError, match=told):
        make_judge("ensemble", **options)


def test_the_fingerprint_is_made_of_the_members():
    prints = {
        EnsembleJudge([Says(name="a")]).fingerprint,
        EnsembleJudge([Says(name="b")]).fingerprint,
        EnsembleJudge([Says(name="a"), Says(name="b")]).fingerprint,
        EnsembleJudge([Says(name="b"), Says(name="a")]).fingerprint,
        EnsembleJudge([Says(name="a")], reduce="min").fingerprint,
        EnsembleJudge([Says(name="a")], weights=[2]).fingerprint,
        EnsembleJudge([Says(name="a")], on_error="rest").fingerprint,
    }
    assert len(prints) == 7
    assert EnsembleJudge([Says(name="a"), Breaks()]).fingerprint == ""


def test_a_cached_verdict_keeps_its_parts_under_a_new_id(tmp_path):
    judge, cache = EnsembleJudge([Says(9, 9), Says(3, 3)]), VerdictCache(tmp_path)
    score(judge, [make_episode("a", index=0)], cache=cache)
    judge.members = []  # would fail, if asked
    judge_again = EnsembleJudge([Says(0, 0), Says(0, 0)])
    [verdict] = score(judge_again, [make_episode("a", index=1)], cache=cache)
    assert verdict.score == 6
    assert {part.episode for part in verdict.parts} == {verdict.episode}


@pytest.mark.parametrize("why", [JudgeOutageError, JudgeStopError])
def test_what_all_have_said_is_kept_where_a_member_stops(why):
    judge = EnsembleJudge([Says(9, 9, 9, 9, name="stays"), Leaves(1, 1, 1, 1, at=2, why=why)])
    judge.batch_size = 4
    assert settled(judge, 4) == ({0: 5, 1: 5}, why)


def test_the_rest_decide_in_an_outage_of_a_member():
    members = [Leaves(1, 1, 1, 1, at=2), Says(9, 9, 9, 9, name="stays")]
    judge = EnsembleJudge(members, on_error="rest")
    judge.batch_size = 4
    verdicts = score(judge, [make_episode(f"a{i}", index=i) for i in range(4)])
    assert [v.score for v in verdicts] == [5, 5, 9, 9]
    assert verdicts[3].parts[0].error == "nobody answers"


@pytest.mark.parametrize(
    "members",
    [
        [Leaves(1, 1, at=0, name="a"), Leaves(1, 1, at=0, name="b")],  # nobody is left to decide
        [Leaves(1, 1, at=0, why=JudgeStopError), Says(9, 9)],  # a bad key is no outage
    ],
)
def test_what_the_rest_cannot_mend_stops(members):
    judge = EnsembleJudge(members, on_error="rest")
    found, _ = settled(judge, 2)
    assert not any(found.values())
