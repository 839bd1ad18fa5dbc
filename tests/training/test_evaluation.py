"""Evaluation: every number with its spread, comparisons paired by task."""

import random
from dataclasses import replace

import pytest

from agents.scripted import ScriptedAgent
from ovd_envs.errors import OVDError
from ovd_envs.math_tasks import ArithmeticTasks
from ovd_envs.statistics import mean_interval, paired_test, pass_at_k, wilson
from teachers.demonstrators import ScriptedSolver
from tests.training.made import student, task
from training.evaluation import compare, evaluate, is_correct, summarize


def episodes_of(rewards, *, start=0):
    """One episode for each reward, of tasks with numbers from ``start``."""
    return [student(reward, group=start + n) for n, reward in enumerate(rewards)]


def test_one_episode_of_every_task():
    result = summarize(episodes_of([1.0, 0.0, 0.5, 1.0]))
    assert result["accuracy"] == 0.5  # half a reward is no right answer
    assert result["interval"] == list(wilson(2, 4))
    assert (result["n"], result["samples"]) == (4, 1)
    assert result["reward"] == 0.625
    assert result["reward_interval"] == list(mean_interval([1.0, 0.0, 0.5, 1.0]))
    assert result["tokens"] == 12
    assert "pass_at_k" not in result


def test_an_error_is_not_answered_and_counted():
    episodes = episodes_of([1.0, 1.0])
    episodes[1].error = "boom"
    assert not is_correct(episodes[1])
    result = summarize(episodes)
    assert (result["accuracy"], result["errors"], result["n"]) == (0.5, 1, 2)


def test_several_episodes_of_every_task():
    right = [3, 0, 4, 1]
    episodes = [
        student(float(i < count), group=n, index=i)
        for n, count in enumerate(right)
        for i in range(4)
    ]
    random.Random(0).shuffle(episodes)
    result = summarize(episodes)
    shares = [count / 4 for count in right]
    assert result["accuracy"] == pytest.approx(0.5)
    # Over the tasks: sixteen episodes are not sixteen questions.
    assert result["n"] == 4
    low, high = mean_interval(sorted(shares))
    assert result["interval"] == pytest.approx([max(low, 0), min(high, 1)])
    assert result["pass_at_k"] == pytest.approx(
        {str(k): sum(pass_at_k(4, count, k) for count in right) / 4 for k in (1, 2, 4)}
    )


def test_an_interval_of_shares_stays_among_shares():
    episodes = [student(float(n < 1), group=n, index=i) for n in range(4) for i in range(2)]
    low, high = summarize(episodes)["interval"]
    assert 0 <= low <= 0.25 <= high <= 1


def test_agents_are_evaluated_in_their_environment():
    tasks = ArithmeticTasks("addition").distinct("test", 6)
    seen = []
    result, episodes = evaluate(
        ScriptedSolver(), "ovd/Math-v0", tasks, progress=lambda episode: seen.append(episode.task)
    )
    assert result["accuracy"] == 1
    assert (result["n"], result["errors"], result["tokens"]) == (6, 0, 0)
    assert result["seconds"] >= 0
    assert [episode.task for episode in episodes] == tasks
    assert sorted(t.id for t in seen) == sorted(t.id for t in tasks)
    result, _ = evaluate(ScriptedAgent(["no idea"]), "ovd/Math-v0", tasks, samples=3)
    assert (result["accuracy"], result["samples"]) == (0, 3)
    with pytest.raises(OVDError, match="at least one task"):
        evaluate(ScriptedSolver(), "ovd/Math-v0", [])


def test_a_comparison_is_by_task_whatever_the_order():
    first, second = episodes_of([0.0, 1.0, 0.0, 1.0, 0.0]), episodes_of([1.0, 1.0, 1.0, 0.0, 1.0])
    expected = paired_test([False, True, False, True, False], [True, True, True, False, True])
    for seed in range(3):
        random.Random(seed).shuffle(second)
        assert compare(first, second) == {"n": 5, **expected}
    assert expected["difference"] == pytest.approx(0.4)
    assert (expected["gained"], expected["lost"]) == (3, 1)


@pytest.mark.parametrize("change", [{"question": "Another?"}, {"answers": ("another",)}])
def test_other_tasks_under_the_same_ids_are_not_compared(change):
    """Ids of rows without one are places in their file, which may have got another row."""
    first, second = episodes_of([0.0, 1.0]), episodes_of([1.0, 1.0])
    second[1].task = replace(second[1].task, **change)
    with pytest.raises(OVDError, match=f"task '{task(1).id}' is another one in the two"):
        compare(first, second)


def test_only_what_both_have_tried_is_compared():
    first, second = episodes_of([0.0, 0.0, 1.0]), episodes_of([1.0, 1.0, 1.0], start=2)
    assert compare(first, second)["n"] == 1
    assert compare(first, second)["difference"] == 0
    with pytest.raises(OVDError, match="no task in common"):
        compare(first, episodes_of([1.0], start=7))
    with pytest.raises(OVDError, match=f"task '{task(0).id}' was tried more than once"):
        compare(first + episodes_of([1.0]), second)
