"""ScriptedAgent: the messages of a list, of a mapping by task, and of a function."""

import pytest

from agents import rollout
from agents.protocol import Agent
from agents.scripted import ScriptedAgent
from ovd_envs import OVDError, make

ENV = "ovd/Math-v0"


@pytest.fixture
def tasks():
    return make(ENV).tasks.distinct("test", 3)


def test_is_an_agent():
    assert isinstance(ScriptedAgent(["hello"]), Agent)


def test_a_list_is_played_in_every_episode_turn_by_turn(tasks):
    agent = ScriptedAgent(["no idea", "\\boxed{-1}", "\\boxed{-2}"], name="stubborn")
    episodes = rollout(agent, ENV, tasks, env_options={"attempts": 3})
    for episode in episodes:
        assert [turn.action for turn in episode.turns] == ["no idea", "\\boxed{-1}", "\\boxed{-2}"]
        assert {turn.stop for turn in episode.turns} == {"scripted"}
        assert (episode.agent, episode.reward, episode.segments) == ("stubborn", 0.0, [])


def test_a_mapping_gives_each_task_its_own_messages(tasks):
    script = {task.id: [f"\\boxed{{{task.answers[0]}}}"] for task in tasks}
    episodes = rollout(ScriptedAgent(script), ENV, tasks, group_size=2)
    assert [episode.reward for episode in episodes] == [1.0] * 6
    swapped = dict(zip(script, reversed(script.values()), strict=True))
    assert rollout(ScriptedAgent(swapped), ENV, tasks)[0].reward == 0.0


def test_a_function_reads_the_running_episode(tasks):
    def answer(episode):
        if not episode.turns:
            return "let me think"
        assert "No final answer" in episode.turns[-1].observation
        return f"\\boxed{{{episode.task.answers[0]}}}"

    [episode, *_] = rollout(ScriptedAgent(answer), ENV, tasks, env_options={"attempts": 2})
    assert [turn.reward for turn in episode.turns] == [0.0, 1.0]


def test_a_script_that_runs_out_names_task_and_turn(tasks):
    with pytest.raises(OVDError, match=rf"'{tasks[0].id}' is in turn 2, the script has 1 message"):
        rollout(ScriptedAgent(["hm"]), ENV, tasks, env_options={"attempts": 2})


def test_a_mapping_without_the_task_names_it(tasks):
    with pytest.raises(OVDError, match=tasks[0].id):
        rollout(ScriptedAgent({}), ENV, tasks)


def test_a_lone_string_is_not_taken_for_a_list_of_letters():
    with pytest.raises(TypeError, match="list of messages"):
        ScriptedAgent("\\boxed{4}")


def test_a_function_that_fails_ends_only_its_own_episode(tasks):
    def answer(episode):
        if episode.task == tasks[1]:
            raise ZeroDivisionError("mine")
        return f"\\boxed{{{episode.task.answers[0]}}}"

    episodes = rollout(ScriptedAgent(answer), ENV, tasks)
    assert [episode.reward for episode in episodes] == [1.0, 0.0, 1.0]
    assert [episode.end_reason for episode in episodes] == ["answered", "error", "answered"]
    assert "ZeroDivisionError: mine" in episodes[1].error
