"""Verbal feedback at inference: who tries again, what it reads, and what the judge never sees."""

import json

import pytest

from agents.rollout import rollout
from agents.scripted import ScriptedAgent
from ovd_envs import OVDError, make
from teachers import OutcomeJudge, Verdict, judges
from training.evaluation import evaluate
from training.feedback import Feedback, blind, feedback_judge, try_again

ENV = "ovd/Math-v0"
TASKS = make(ENV).tasks.distinct("test", 4)
TOLD = "A teacher read your last attempt"


class Teacher:
    """Scores by the student's words alone: "0 because of x"; refuses to see what it must not."""

    name = "teacher"
    show_gold = False

    def __init__(self):
        self.read = []

    def judge(self, episodes):
        self.read += episodes
        return [self._verdict(episode) for episode in episodes]

    def _verdict(self, episode):
        score, _, reason = episode.answer.partition(" ")
        if score == "?":
            return Verdict(episode.id, self.name, None, error="no idea")
        return Verdict(episode.id, self.name, float(score), reason)


class Speaker:
    """Says ``script(task number, attempt, what it was told)``."""

    name = "speaker"

    def __init__(self, script):
        self.script = script
        self.heard = []

    def agent(self):
        return ScriptedAgent(self._say, self.name)

    def _say(self, episode):
        number = [task.id for task in TASKS].index(episode.task.id)
        _, _, remark = episode.observation.partition("\n\n")
        attempt = episode.seed[1]
        self.heard.append((number, attempt, remark))
        return self.script(number, attempt).replace("GOLD", f"\\boxed{{{episode.task.answers[0]}}}")


def run(script, **options):
    """(result, chosen episodes, what the student heard, the teacher)."""
    speaker, teacher = Speaker(script), options.pop("judge", None) or Teacher()
    mode = options.pop("mode", None)
    _, first = evaluate(speaker.agent(), ENV, TASKS)
    speaker.heard.clear()
    feedback = Feedback(teacher, **options)
    result, chosen = try_again(speaker.agent(), ENV, first, feedback, mode=mode)
    return result, chosen, speaker.heard, teacher


#: By task: right at once; right once it was told; never; the judge does not know.
SCRIPT = [["9 GOLD"] * 3, ["1 add the tens", "8 GOLD", ""], ["4 a", "2 b", "3 c"], ["? GOLD"] * 3]


def script(number, attempt):
    return SCRIPT[number][attempt]


@pytest.mark.parametrize("mode", ["lockstep", "free"])
def test_below_theta_the_student_tries_again_with_the_reason(mode):
    result, chosen, heard, teacher = run(script, attempts=2, mode=mode)
    assert sorted(heard) == [
        (1, 1, f"{TOLD} at this and was not satisfied: add the tens\nTry again."),
        (2, 1, f"{TOLD} at this and was not satisfied: a\nTry again."),
        (2, 2, f"{TOLD} at this and was not satisfied: b\nTry again."),
    ]
    assert [episode.answer[:3] for episode in chosen] == ["9 \\", "8 \\", "4 a", "? \\"]
    assert {episode.env for episode in chosen} == {ENV}
    assert (result["accuracy"], result["n"]) == (0.75, 4)
    assert (result["retried"], result["retries"]) == (2, 3)
    assert (result["judge_calls"], result["judge_errors"]) == (7, 1)
    assert len(teacher.read) == 7
    assert (result["alone"]["difference"], result["alone"]["gained"]) == (0.25, 1)
    assert result["gold_aware"] is False


def test_one_attempt_and_another_theta():
    result, _, heard, _ = run(script, attempts=1, theta=2)
    assert [(number, attempt) for number, attempt, _ in heard] == [(1, 1)]
    assert result["judge_calls"] == 5
    result, _, heard, _ = run(script, attempts=5, theta=0)
    assert heard == []
    assert result["alone"]["difference"] == 0


def test_without_the_reason_the_student_is_only_sampled_again():
    result, chosen, heard, _ = run(script, attempts=2, with_reason=False)
    assert {remark for *_, remark in heard} == {""}
    assert len(heard) == 3
    assert result["with_reason"] is False
    [alone] = rollout(ScriptedAgent(["x"]), ENV, TASKS[1:2])
    assert chosen[1].observation == alone.observation


def test_a_judge_without_a_reason_says_that_much():
    _, _, heard, _ = run(lambda number, attempt: "0", attempts=1)
    assert {remark for *_, remark in heard} == {
        f"{TOLD} at this and was not satisfied.\nTry again."
    }


def test_gold_is_never_shown_unless_asked_for():
    *_, teacher = run(script, attempts=2)
    for episode in teacher.read:
        assert (episode.task.answers, episode.task.metadata, episode.info) == ((), {}, {})
        assert (episode.reward, [t.reward for t in episode.turns]) == (0, [0.0])
        # Nothing that the student has not written itself tells the answer.
        gold = next(task.answers[0] for task in TASKS if task.id == episode.task.id)
        said = json.dumps({**episode.to_dict(), "turns": [], "id": "", "started": 0, "seconds": 0})
        assert f'"{gold}"' not in said
        assert blind(episode).id == episode.id
    aware = run(script, attempts=1, judge=OutcomeJudge(), gold_aware=True)
    assert aware[0]["gold_aware"] is True
    assert aware[0]["accuracy"] == 0.75  # it knows who is wrong: two of four tried again


def test_a_judge_that_sees_gold_is_refused_or_made_blind():
    for name in ("steps", "path", "outcome"):
        with pytest.raises(OVDError, match="reads the gold answers"):
            feedback_judge(name, {}, gold_aware=False)
        assert feedback_judge(name, {}, gold_aware=True).name == name

    class Sighted:
        name = "sighted"

        def __init__(self, show_gold=True):
            self.show_gold = show_gold

        def judge(self, episodes):
            return []

    class Silent:
        name = "silent"

        def judge(self, episodes):
            return []

    judges.register("sighted", Sighted, "for tests")
    judges.register("silent", Silent, "for tests")
    assert feedback_judge("sighted", {}, gold_aware=False).show_gold is False
    assert feedback_judge("sighted", {}, gold_aware=True).show_gold is True
    with pytest.raises(OVDError, match="show_gold=True lets"):
        feedback_judge("sighted", {"show_gold": True}, gold_aware=False)
    with pytest.raises(OVDError, match="judge 'silent': reads the gold answers"):
        feedback_judge("silent", {}, gold_aware=False)


def test_a_task_that_was_tried_twice_is_refused():
    speaker = Speaker(script)
    _, first = evaluate(speaker.agent(), ENV, TASKS, samples=2)
    with pytest.raises(OVDError, match="one episode of each task"):
        try_again(speaker.agent(), ENV, first, Feedback(Teacher()))


def test_environments_in_processes_are_told_too():
    speaker = Speaker(script)
    _, first = evaluate(speaker.agent(), ENV, TASKS)
    speaker.heard.clear()
    result, _ = try_again(speaker.agent(), ENV, first, Feedback(Teacher()), mode="free", workers=1)
    assert result["retries"] == 2
    assert all(TOLD in remark for *_, remark in speaker.heard)
