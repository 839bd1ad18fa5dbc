from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ovd_envs
from ovd_envs import Budget, ListTasks, OVDError, Task, TaskError
from ovd_envs.math_tasks import LEVELS


def make(**options):
    return ovd_envs.make("ovd/Math-v0", **options)


def one(answers, question="Q?", **options):
    """The environment with one task of these gold answers."""
    tasks = ListTasks("one", train=[Task("one", question, tuple(answers))])
    env = make(source=tasks, **options)
    env.reset(seed=0)
    return env


def test_an_episode():
    env = make(level="addition", split="test")
    observation, info = env.reset(options={"task": "math-addition/test/0"})
    assert observation == "What is 43 + 27? Give the final answer in \\boxed{}."
    assert info == {"task": "math-addition/test/0", "turn": 0, "end_reason": ""}
    assert env.step("43 + 27 = 70, so \\boxed{70}") == (
        "",
        1.0,
        True,
        False,
        {
            "task": "math-addition/test/0",
            "turn": 1,
            "end_reason": "answered",
            "outcome": "right",
            "answer": "70",
            "answers": ["70"],
        },
    )


@pytest.mark.parametrize(
    ("message", "reward", "end", "outcome"),
    [
        ("\\boxed{70}", 1.0, "answered", "right"),
        ("The answer is 70.", 1.0, "answered", "right"),
        ("#### 70", 1.0, "answered", "right"),
        ("\\boxed{71}", 0.0, "answered", "wrong"),
        ("\\boxed{43 + 27}", 0.0, "answered", "wrong"),
        ("70", 0.0, "no_answer", "no_answer"),
        ("", 0.0, "no_answer", "no_answer"),
        ("\\boxed{70", 0.0, "no_answer", "no_answer"),
    ],
)
def test_outcomes(message, reward, end, outcome):
    env = make()
    env.reset(options={"task": "math-addition/test/0"})
    _, got, terminated, _, info = env.step(message)
    assert (got, terminated, info["end_reason"], info["outcome"]) == (reward, True, end, outcome)


def test_the_prompt_is_never_read_for_the_answer():
    # The question itself holds a boxed gold answer: an environment that reads prompt and reply
    # together would pay for silence.
    env = one(["70"], question="As in \\boxed{70}: what is 43 + 27? The answer is 70.")
    _, reward, _, _, info = env.step("I do not know.")
    assert (reward, info["outcome"]) == (0.0, "no_answer")


def test_several_attempts_with_feedback():
    env = one(["70"], attempts=3)
    observation, reward, terminated, truncated, info = env.step("hm")
    assert observation == "No final answer found. Give the final answer in \\boxed{}."
    assert (reward, terminated, truncated, info["end_reason"]) == (0.0, False, False, "")
    observation, *_ = env.step("\\boxed{71}")
    assert observation == "That is not right. Try again."
    assert env.step("\\boxed{70}")[1:4] == (1.0, True, False)


def test_the_last_attempt_ends_the_episode():
    env = one(["70"], attempts=2)
    env.step("\\boxed{1}")
    _, reward, terminated, truncated, info = env.step("\\boxed{2}")
    assert (reward, terminated, truncated, info["end_reason"]) == (0.0, True, False, "answered")


@given(st.integers(2, 4), st.lists(st.integers(1000, 1005), min_size=4, max_size=4))
def test_feedback_never_tells_the_gold_answer(attempts, guesses):
    env = one(["1003"], attempts=attempts)
    for guess in guesses:
        observation, _, terminated, _, info = env.step(f"\\boxed{{{guess}}}")
        assert "1003" not in observation
        if terminated:
            assert info["answers"] == ["1003"]
            break
        assert "1003" not in str(info)


def test_any_gold_answer_is_right():
    env = one(["x + 1", "x - 1"])
    assert env.step("\\boxed{-1 + x}")[1] == 1.0


def test_a_timeout_is_worth_nothing_and_says_so():
    env = one(["x + 1"], attempts=2, deadline=1.0)
    observation, reward, terminated, _, info = env.step("\\boxed{10^{10^{10}}}")
    assert (reward, terminated, info["outcome"]) == (0.0, False, "timeout")
    assert "could not be checked in time" in observation


def test_a_gold_answer_that_takes_too_long_is_an_error():
    env = one(["10^{10^{10}}"], deadline=0.5)
    with pytest.raises(TaskError, match="gold answer"):
        env.step("\\boxed{95}")


def test_budgets_beside_the_attempts():
    env = one(["70"], attempts=3, budget={"characters": 10})
    *_, terminated, truncated, info = env.step("a long message")
    assert (terminated, truncated, info["end_reason"]) == (False, True, "character_limit")
    for budget in (Budget(characters=10), {"characters": 10}):
        assert one(["70"], attempts=3, budget=budget).budget == Budget(turns=3, characters=10)
    env = one(["70"], attempts=2, budget=Budget(seconds=60))
    assert not any(env.step("hm")[2:4])
    assert env.step("hm")[4]["end_reason"] == "no_answer"
    message = r"^budget turns: give attempts=1 to the environment itself$"
    with pytest.raises(OVDError, match=message):
        one(["70"], attempts=3, budget={"turns": 1})


@pytest.mark.parametrize("level", LEVELS)
def test_prompts_are_short(level):
    env = make(level=level)
    lengths = [len(env.reset(seed=seed)[0]) for seed in range(50)]
    assert max(lengths) < 400
    if level == "addition":
        assert max(lengths) < 60


def test_own_files(tmp_path, shared_data):
    env = make(source=str(shared_data / "math" / "gsm8k_test.jsonl"), split="test")
    env.reset(seed=0)
    assert env.step(f"#### {env.task.answers[0]}")[1] == 1.0
    env = make(source=shared_data / "math" / "math500_first250.jsonl")
    env.reset(options={"task": env.tasks.task("train", 0)})
    assert env.step(env.task.metadata["rationale"])[1] == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": "calculus"}, "level: expected one of addition"),
        ({"attempts": 0}, "attempts: expected a whole number of at least 1, got 0"),
        ({"attempts": 1.5}, "attempts"),
        ({"split": "validation"}, "split: expected one of train, test"),
        ({"source": "nowhere.jsonl"}, "nowhere.jsonl: cannot be read"),
        ({"source": "rubbish"}, "task source 'rubbish'"),
        ({"level": "addition", "source": "x.jsonl"}, "expected one of the two"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(OVDError, match=message):
        make(**options)


def test_gold_actions_are_right_at_every_level():
    for level in LEVELS:
        env = make(level=level)
        for seed in range(20):
            env.reset(seed=seed)
            (message,) = env.gold_actions(env.task, env.task.answers[0])
            assert env.step(message)[1] == 1.0


def test_a_task_from_another_source_is_graded_as_its_own_answer_needs():
    env = ovd_envs.make("ovd/Math-v0", level="addition")  # whose own answers are all numbers
    task = Task("mine/test/0", "Factor x squared minus 1.", ("(x-1)(x+1)",))
    env.reset(options={"task": task})
    _, reward, *_ = env.step(r"\boxed{(x+1)(x-1)}")
    assert reward == 1
    env.reset(options={"task": task})
    _, reward, *_ = env.step(r"\boxed{x+1}")
    assert reward == 0
