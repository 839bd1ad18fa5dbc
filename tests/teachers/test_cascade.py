import pytest

from ovd_envs.errors import OVDError
from teachers import JudgeOutageError, JudgeStopError, make_judge, score
from teachers.cascade import CascadeJudge
from tests.teachers.conftest import make_episode
from tests.teachers.test_ensemble import Breaks, Leaves, Says, settled


class Counts(Says):
    def judge(self, episodes):
        self.asked = [e.index for e in episodes]
        return super().judge(episodes)


def test_the_dear_judge_is_asked_only_near_theta_and_for_failures():
    cheap = Says(9, 8, 7.5, 6, 5.9, None, name="cheap")
    dear = Counts(1, 2, 3, 4, 5, 6, name="dear")
    verdicts = score(
        CascadeJudge(cheap, dear, theta=7, margin=1),
        [make_episode(f"a{i}", index=i) for i in range(6)],
    )
    assert dear.asked == [1, 2, 3, 5]
    assert [v.score for v in verdicts] == [9, 2, 3, 4, 5.9, 6]
    assert verdicts[0].reason == "[cheap decided] so"
    assert verdicts[1].reason == "[dear decided, for cheap gave 8] so"
    assert verdicts[5].reason == "[dear decided, for cheap failed] so"
    assert [[p.judge for p in v.parts] for v in verdicts[:2]] == [["cheap"], ["cheap", "dear"]]


def test_a_dear_judge_that_fails_is_an_error_and_not_the_cheap_score():
    [verdict] = score(CascadeJudge(Says(7), Breaks()), [make_episode("a")])
    assert verdict.failed
    assert "ConnectionError" in verdict.error
    assert verdict.parts[0].score == 7


def test_no_question_without_doubt():
    dear = Counts(1)
    [verdict] = score(CascadeJudge(Says(3), dear, margin=0), [make_episode("a")])
    assert verdict.score == 3
    assert not hasattr(dear, "asked")


def test_options():
    judge = make_judge("cascade", cheap="steps", dear={"name": "outcome"}, theta=5, margin=2)
    assert (judge.cheap.name, judge.dear.name) == ("steps", "outcome")
    other = make_judge("cascade", cheap="steps", dear="outcome", theta=6, margin=2)
    assert judge.fingerprint != other.fingerprint
    assert make_judge("cascade", cheap="steps", dear=Breaks()).fingerprint == ""
    for options, told in [
        ({"cheap": "steps"}, "dear: "),
        ({"cheap": "steps", "dear": "outcome", "theta": 11}, "theta: expected a number in 0..10"),
        ({"cheap": "steps", "dear": "outcome", "margin": "x"}, "margin: expected a number"),
        ({"cheap": "steps", "dear": "outcome", "margin": float("nan")}, "margin: expected"),
    ]:
        with pytest.raises(OVDError, match=told):
            make_judge("cascade", **options)


def test_what_is_decided_is_kept_where_the_dear_judge_stops():
    judge = CascadeJudge(Says(7, 3, 7, 3, name="cheap"), Leaves(9, 9, 9, 9, at=2), margin=0)
    judge.batch_size = 4
    assert settled(judge, 4) == ({1: 3, 3: 3}, JudgeOutageError)
    judge.dear.batch_size = 1
    assert settled(judge, 4) == ({0: 9, 1: 3, 3: 3}, JudgeOutageError)


def test_the_dear_judge_decides_in_an_outage_of_the_cheap_one():
    judge = CascadeJudge(Leaves(3, 3, 3, 3, at=2), Says(9, 9, 9, 9, name="dear"))
    judge.batch_size = 4
    verdicts = score(judge, [make_episode(f"a{i}", index=i) for i in range(4)])
    assert [v.score for v in verdicts] == [3, 3, 9, 9]
    judge.cheap.why = JudgeStopError
    assert settled(judge, 4) == ({0: 3, 1: 3}, JudgeStopError)
