from __future__ import annotations

import pytest

import ovd_envs
from ovd_envs import TaskError
from ovd_envs.sources import task_source

pytest.importorskip("reasoning_gym", reason="reasoning-gym is optional")

from ovd_envs.reasoning_gym_tasks import ReasoningGymTasks


@pytest.fixture(scope="module")
def sums():
    return ReasoningGymTasks("chain_sum", min_terms=3, max_terms=3)


def test_tasks_are_the_same_for_ever_and_splits_apart(sums):
    again = ReasoningGymTasks("chain_sum", min_terms=3, max_terms=3)
    train = [sums.task("train", n) for n in range(60)]
    assert train == [again.task("train", n) for n in range(60)]
    test = {sums.task("test", n).question for n in range(60)}
    assert not test & {task.question for task in train}
    assert sums.find(train[5].id) == train[5]
    assert sums.size("train") is None


def test_settings_and_seed_make_the_tasks(sums):
    assert ReasoningGymTasks("chain_sum").task("train", 0) != sums.task("train", 0)
    other = ReasoningGymTasks("chain_sum", seed=1, min_terms=3, max_terms=3)
    assert other.task("train", 0) != sums.task("train", 0)


def test_the_scorer_of_the_dataset_is_the_reward(sums):
    env = ovd_envs.make("ovd/Math-v0", source=sums)
    env.reset(seed=0)
    gold = env.task.answers[0]
    assert sums.score(env.task, gold) == 1
    assert env.step(f"\\boxed{{{gold}}}")[1:3] == (1.0, True)
    env.reset(seed=0)
    reward, info = env.step(f"\\boxed{{{gold} it is}}")[1::3]
    assert 0 < reward < 1, "this scorer gives a part for a text that holds the answer"
    assert info["outcome"] == "wrong"
    env.reset(seed=0)
    assert env.step("no answer")[1] == 0


def test_answers_that_the_scorer_evaluates_cannot_hang_or_run_code(tmp_path, monkeypatch):
    monkeypatch.setattr("ovd_envs.reasoning_gym_tasks._DEADLINE", 1.0)
    source = task_source("reasoning-gym:simple_integration")
    task = source.task("train", 0)
    assert source.score(task, task.answers[0]) == 1
    assert source.score(task, "9**9**9**9**9") == 0
    assert source.score(task, task.answers[0]) == 1


def test_unknown_datasets_and_settings_are_named():
    with pytest.raises(TaskError, match="no dataset 'chain_sums'"):
        ReasoningGymTasks("chain_sums")
    with pytest.raises(TaskError, match=r"'chain_sum': .*min_term"):
        ReasoningGymTasks("chain_sum", min_term=3)
