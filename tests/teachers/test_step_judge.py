"""The step judge: scores, reasons, and what it reads."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovd_envs.errors import TaskError
from ovd_envs.grading import Grade
from ovd_envs.math_tasks import ArithmeticTasks
from teachers import AgentDemonstrator, ScriptedSolver, StepJudge, score
from tests.teachers.conftest import make_episode


def verdict(episode):
    [found] = score(StepJudge(), [episode])
    assert not found.failed, found.error
    return found


@pytest.mark.parametrize(
    ("message", "points", "reason"),
    [
        (
            r"30 + 50 = 80, 7 + 8 = 15, 80 + 15 = 95. \boxed{95}",
            9,
            "All 3 equations are right, and so is the answer 95.",
        ),
        (r"37 + 58 = 95. \boxed{95}", 9, "The equation is right, and so is the answer 95."),
        (r"\boxed{95}", 8, "The answer 95 is right; there is no working to check."),
        (
            r"30 + 50 = 80, 7 + 8 = 16, 80 + 15 = 95. \boxed{95}",
            6,
            "The answer 95 is right, but step 2: 7 + 8 = 16 is wrong (it is 15).",
        ),
        (
            r"30 + 50 = 70, 7 + 8 = 16, 80 + 15 = 95. \boxed{95}",
            5,
            "The answer 95 is right, but step 1: 30 + 50 = 70 is wrong (it is 80); "
            "step 2: 7 + 8 = 16 is wrong (it is 15).",
        ),
        (
            r"1 + 1 = 3, 1 + 2 = 4, 1 + 3 = 5, 1 + 4 = 6, 1 + 5 = 7. \boxed{95}",
            5,
            "The answer 95 is right, but step 1: 1 + 1 = 3 is wrong (it is 2); "
            "step 2: 1 + 2 = 4 is wrong (it is 3); step 3: 1 + 3 = 5 is wrong (it is 4); "
            "and 2 more.",
        ),
        (
            r"30 + 50 = 80, 7 + 8 = 15, 80 + 15 = 96. \boxed{96}",
            2,
            "The answer 96 is wrong; step 3: 80 + 15 = 96 is wrong (it is 95).",
        ),
        (
            r"30 + 50 = 80, 80 + 7 = 87. \boxed{87}",
            4,
            "The answer 87 is wrong, though all 2 equations are right.",
        ),
        (
            r"37 + 58 = 96. \boxed{96}",
            0,
            "The answer 96 is wrong; step 1: 37 + 58 = 96 is wrong (it is 95).",
        ),
        (r"\boxed{96}", 0, "The answer 96 is wrong, and there is no working to check."),
        ("I do not know.", 0, "There is no final answer, and there is no working to check."),
        ("", 0, "There is no final answer, and there is no working to check."),
        (
            "37 + 58 = 95",
            3,
            "There is no final answer, though the one equation is right.",
        ),
    ],
)
def test_scores_and_reasons(message, points, reason):
    found = verdict(make_episode(message))
    assert (found.score, found.reason) == (points, reason)


def test_only_the_models_own_turns_are_read():
    """Not the prompt, with its example, and not what the environment answers."""
    found = verdict(
        make_episode(
            "I do not know.",
            "Still not.",
            observation=r"Example: 1 + 1 = 3, \boxed{95}. What is 37 + 58? 2 + 2 = 5.",
            observations=[r"No: 3 + 3 = 7. The answer is \boxed{95}.", r"\boxed{95} 4 + 4 = 9"],
        )
    )
    assert found.score == 0
    assert found.reason == "There is no final answer, and there is no working to check."


def test_every_turn_is_read_and_the_last_one_answers():
    found = verdict(
        make_episode(
            r"37 + 58 = 85. \boxed{85}",
            r"30 + 50 = 80, 7 + 8 = 15, 80 + 15 = 95. \boxed{95}",
            observations=["That is not right. Try again."],
        )
    )
    assert found.score == 6
    assert "turn 1, step 1: 37 + 58 = 85 is wrong (it is 95)" in found.reason


def test_no_turn_at_all():
    assert verdict(make_episode()).score == 0


def test_the_question_is_not_an_answer_to_itself():
    task = {"solution": ["37 + 58 = 95"], "operands": [37, 58]}
    found = verdict(make_episode(r"\boxed{37 + 58}", metadata=task))
    assert found.score == 0


def test_an_answer_in_another_form_is_right():
    assert verdict(make_episode(r"\boxed{1,000}", answers=["1000"])).score == 8
    assert verdict(make_episode(r"\boxed{x}", answers=["y", "x"])).score == 8


def test_what_is_too_long_to_read_is_not_accepted():
    text = "1 + 1 = 2. " * 10_000 + "7 + 8 = 16. \\boxed{95}"
    found = verdict(make_episode(text))
    assert found.score == 6
    assert "Only the first 100,000 characters" in found.reason


@pytest.mark.parametrize(
    "text",
    [
        "9" * 1_000_000,
        "10^{10^{10}} = 1 " * 60_000,
        "\\boxed{" * 140_000,
        "1=" * 500_000,
        "\0" * 99,
    ],
)
def test_hostile_text_is_judged_in_bounded_time(text):
    began = time.process_time()
    verdict(make_episode(text))
    assert time.process_time() - began < 10


def test_a_gold_answer_that_cannot_be_graded_is_an_error_and_no_zero():
    def grade(golds, message):
        raise TaskError("gold answer 'x':\nexpected a number")

    [found] = StepJudge(grade).judge([make_episode(r"\boxed{95}")])
    assert found.failed
    assert found.error == "gold answer 'x': expected a number"
    [found] = StepJudge().judge([make_episode(r"\boxed{95}", answers=[])])
    assert found.failed


def test_the_outcome_of_the_environment_is_taken_for_the_answer_it_is_of():
    """A source may score in its own way; what it graded must still be the last message's answer."""
    kept = {"outcome": "right", "answer": "ninety-five"}
    assert verdict(make_episode(r"\boxed{ninety-five}", info=kept)).score == 8
    assert verdict(make_episode(r"\boxed{94}", info=kept)).score == 0
    assert verdict(make_episode(r"\boxed{95}", info={"outcome": "won", "answer": "95"})).score == 8


def test_an_answer_that_takes_too_long_is_not_called_wrong():
    judge = StepJudge(lambda golds, message: Grade(False, "timeout", "9^9^9"))
    [found] = judge.judge([make_episode("7 + 8 = 15")])
    assert found.score == 4
    assert "The answer 9^9^9 could not be compared in time" in found.reason
    assert judge.fingerprint == ""  # a grader of one's own is not cached


steps = st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99), st.booleans()), max_size=6)


@given(steps, st.sampled_from(["95", "96", None]))
def test_score_and_reason_follow_from_steps_and_answer(made, answer):
    lines = [f"{a} + {b} = {a + b + (not right)}" for a, b, right in made]
    text = "; ".join(lines) + (f"; \\boxed{{{answer}}}" if answer else "")
    found = verdict(make_episode(text))
    wrong = [number for number, (_, _, right) in enumerate(made, 1) if not right]
    assert (found.score >= 7) == (answer == "95" and not wrong)
    assert (found.score == 9) == (answer == "95" and bool(made) and not wrong)
    assert (found.score >= 5) == (answer == "95")
    assert ("all" in found.reason.lower() or "equation is right" in found.reason) == (
        bool(made) and not wrong
    )
    for number in range(1, len(made) + 1):
        named = f"step {number}: {lines[number - 1]} is wrong" in found.reason
        assert named == (number in wrong[:3])


@pytest.mark.parametrize("working", ["direct", "split"])
def test_the_scripted_solver_is_right_in_every_wording(working):
    source = ArithmeticTasks("addition")
    tasks = [source.task("train", i) for i in range(300)]
    requests = [(task, (0, 0, i, 0)) for i, task in enumerate(tasks)]
    shown = AgentDemonstrator(ScriptedSolver(working)).demonstrate("ovd/Math-v0", requests)
    verdicts = score(StepJudge(), shown)
    assert [v.score for v in verdicts] == [9] * 300
    count = "All 2 equations" if working == "split" else "The equation"
    assert all(v.reason.startswith(count) for v in verdicts)
