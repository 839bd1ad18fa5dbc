from __future__ import annotations

import re
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovd_envs import TaskError
from ovd_envs.math_tasks import LEVELS, LISTED, ArithmeticTasks

EQUATION = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")
WORDS = [level for level in LEVELS if level.startswith("word")]


def equations(task):
    """The equations of a task's solution as (left, operator, right, result)."""
    found = [EQUATION.fullmatch(line) for line in task.metadata["solution"]]
    assert all(found), task.metadata["solution"]
    return [(int(m[1]), m[2], int(m[3]), int(m[4])) for m in found]


def check_solution(task):
    for left, operator, right, result in equations(task):
        assert result > 0
        if operator == "/":
            assert left == right * result
        else:
            assert {"+": left + right, "-": left - right, "*": left * right}[operator] == result
    assert task.answers == (str(equations(task)[-1][3]),)


@given(st.sampled_from(LEVELS), st.sampled_from(["train", "test"]), st.integers(0, 10**6))
def test_solutions_are_exact_and_end_in_the_answer(level, split, index):
    source = ArithmeticTasks(level)
    size = source.size(split)
    task = source.task(split, index if size is None else index % size)
    check_solution(task)
    assert task.metadata["level"] == level
    assert source.find(task.id) == task == ArithmeticTasks(level).find(task.id)


@pytest.mark.parametrize("level", LISTED)
def test_listed_levels_hold_every_question_once_in_one_split(level):
    source = ArithmeticTasks(level)
    pairs = {
        split: [tuple(t.metadata["operands"]) for t in source.iterate(split)]
        for split in source.splits
    }
    for found in pairs.values():
        assert len(set(found)) == len(found)
    if level == "subtraction":
        assert not set(pairs["train"]) & set(pairs["test"])
        assert len(pairs["train"]) + len(pairs["test"]) == 89 * 90 // 2
        return
    unordered = {split: {tuple(sorted(pair)) for pair in found} for split, found in pairs.items()}
    assert not unordered["train"] & unordered["test"]
    assert len(unordered["test"]) == len(pairs["test"])
    low = 10 if level == "addition" else 2
    count = 100 - low
    assert len(unordered["train"] | unordered["test"]) == count * (count + 1) // 2
    assert len(set(pairs["train"])) == 2 * len(unordered["train"]) - sum(
        a == b for a, b in unordered["train"]
    )


def test_addition_is_what_the_demo_promises():
    source = ArithmeticTasks("addition")
    tasks = source.distinct("test", 220)
    for task in tasks:
        a, b = task.metadata["operands"]
        assert 10 <= a <= 99
        assert 10 <= b <= 99
        assert task.question == f"What is {a} + {b}?"
        assert task.metadata["solution"] == [f"{a} + {b} = {a + b}"]


@pytest.mark.parametrize("level", LEVELS)
def test_splits_share_no_question(level):
    source = ArithmeticTasks(level)
    train = {task.question for task in islice(source.iterate("train"), 1500)}
    test = {task.question for task in islice(source.iterate("test"), 300)}
    assert not train & test
    assert len(source.distinct("test", 220)) == 220


@pytest.mark.parametrize("level", [level for level in LEVELS if level not in LISTED])
def test_no_solution_of_an_unlimited_level_is_in_two_splits(level):
    # Whatever the names and things: a story with the same numbers is the same exercise.
    source = ArithmeticTasks(level)
    train = {tuple(t.metadata["solution"]) for t in islice(source.iterate("train"), 1500)}
    test = {tuple(t.metadata["solution"]) for t in islice(source.iterate("test"), 300)}
    assert not train & test


#: Tasks are the same for ever: results of other people depend on them.
FROZEN = {
    "math-addition/train/5": "What is 56 + 30?",
    "math-addition/test/0": "What is 43 + 27?",
    "math-subtraction/train/3": "What is 56 - 30?",
    "math-multiplication/test/7": "What is 88 * 12?",
    "math-mixed/train/11": "What is 79 - 69 + 55?",
    "math-word-1/test/4": (
        "Elena has 23 stickers. She finds 12 more stickers. How many stickers does Elena have now?"
    ),
    "math-word-2/train/9": (
        "Omar has 60 peaches. "
        "Beatriz gives him 27 more peaches. "
        "By the end of the week, Omar has twice as many peaches. "
        "How many peaches does Omar have now?"
    ),
    "math-word-3/test/0": (
        "Beatriz has 14 peaches. "
        "There are 18 children in the class of Beatriz. "
        "By the end of the week, Beatriz has twice as many peaches. "
        "She buys 13 more peaches. "
        "She sells all the peaches for 4 dollars each. "
        "How many dollars does she get?"
    ),
}


@pytest.mark.parametrize(("task_id", "question"), FROZEN.items())
def test_tasks_never_change(task_id, question):
    level = task_id.split("/")[0].removeprefix("math-")
    assert ArithmeticTasks(level).find(task_id).question == question


def test_mixed_expressions_say_what_their_solutions_compute():
    for task in islice(ArithmeticTasks("mixed").iterate("train"), 500):
        expression = task.question.removeprefix("What is ").removesuffix("?")
        assert set(expression) <= set("0123456789 +-*()")
        assert eval(expression) == int(task.answers[0])
        assert len(equations(task)) in (2, 3)


@pytest.mark.parametrize("level", WORDS)
def test_stories_have_as_many_steps_as_their_level_says(level):
    for task in islice(ArithmeticTasks(level).iterate("train"), 500):
        assert len(task.metadata["solution"]) == int(level[-1])


@pytest.mark.parametrize("level", WORDS)
def test_stories_tell_every_number_that_solves_them(level):
    halves = {"half of the": 2, "twice as many": 2}
    for task in islice(ArithmeticTasks(level).iterate("test"), 500):
        told = [int(n) for n in re.findall(r"\d+", task.question)]
        told += [n for phrase, n in halves.items() for _ in range(task.question.count(phrase))]
        known = list(told)
        for left, _, right, result in equations(task):
            assert left in known, task
            assert right in known, task
            known.append(result)
        # What asks for the answer stands at the end, once.
        assert task.question.endswith("?")
        assert task.question.count("?") == 1


def test_stories_read_well():
    for level in WORDS:
        for task in islice(ArithmeticTasks(level).iterate("train"), 500):
            assert len(task.question) < 330
            assert "{" not in task.question
            assert "  " not in task.question
            for sentence in re.findall(r"[^.?]+[.?]", task.question):
                assert sentence.strip()[0].isupper(), task.question
            assert not re.search(r"\b1 \w+s\b", task.question), task.question


def test_some_stories_hold_a_number_that_does_not_matter():
    surplus = 0
    for task in islice(ArithmeticTasks("word-3").iterate("train"), 400):
        used = {str(n) for left, _, right, _ in equations(task) for n in (left, right)}
        surplus += any(n not in used for n in re.findall(r"\d+", task.question))
    assert 60 < surplus < 240


def test_stories_are_varied():
    tasks = list(islice(ArithmeticTasks("word-2").iterate("train"), 1000))
    assert len({t.question.split()[0] for t in tasks}) > 60
    assert len({tuple(t.metadata["solution"]) for t in tasks}) > 700
    assert {op for t in tasks for _, op, _, _ in equations(t)} == set("+-*/")


def test_bad_levels_splits_and_indices_are_named():
    with pytest.raises(TaskError, match=r"expected one of addition, .*, got 'algebra'"):
        ArithmeticTasks("algebra")
    source = ArithmeticTasks("addition")
    with pytest.raises(TaskError, match="split: expected one of train, test"):
        source.task("dev", 0)
    with pytest.raises(TaskError, match=r"no task 100000 \(7628 of them\)"):
        source.task("train", 100_000)
    with pytest.raises(TaskError, match="no end of them"):
        ArithmeticTasks("word-1").task("train", -1)
