from __future__ import annotations

import copy
import re
import time
import warnings

import gymnasium
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from hypothesis import given
from hypothesis import strategies as st

from ovd_envs import Budget, ListTasks, OVDError, Reply, Task, TaskError, TextEnv
from ovd_envs.env import BUDGET_ENDS

TASKS = ListTasks(
    "echo",
    train=[Task(f"echo-{n}", f"Say {n}.", (str(n),)) for n in range(50)],
    test=[Task("echo-last", "Say last.", ("last",))],
)


class Echo(TextEnv):
    """A test environment whose replies are given by a function."""

    def __init__(self, reply=None, observe=None, **options):
        super().__init__(TASKS, **options)
        self._reply = reply or (lambda env, action: Reply(f"you said {action}"))
        self._observe = observe or (lambda task: task.question)

    def observe(self, task):
        return self._observe(task)

    def respond(self, action):
        return self._reply(self, action)


def ends(action):
    return Reply("done", 1.0, end="answered") if "stop" in action else Reply("go on")


def test_an_episode():
    env = Echo(lambda env, action: ends(action), budget=Budget(turns=3))
    observation, info = env.reset(options={"task": "echo-7"})
    assert observation == "Say 7."
    assert info == {"task": "echo-7", "turn": 0, "end_reason": ""}
    assert env.step("hello") == (
        "go on",
        0.0,
        False,
        False,
        {"task": "echo-7", "turn": 1, "end_reason": ""},
    )
    assert env.step("stop") == (
        "done",
        1.0,
        True,
        False,
        {"task": "echo-7", "turn": 2, "end_reason": "answered", "answers": ["7"]},
    )


def over_every_budget(order):
    """A budget that the message "xxxx" uses up from the limit number ``order`` on."""
    limits = [
        {"turns": 1},
        {"characters_per_turn": 3},
        {"characters": 3},
        {"tokens": 3, "count_tokens": len},
        {"seconds": 1e-9},
    ]
    merged = {"turns": None}
    for limit in limits[order:]:
        merged |= limit
    return Budget(**merged)


@pytest.mark.parametrize(("order", "reason"), list(enumerate(BUDGET_ENDS)))
def test_budgets_end_the_episode_in_the_documented_order(order, reason):
    env = Echo(budget=over_every_budget(order))
    env.reset(seed=0)
    *_, terminated, truncated, info = env.step("xxxx")
    assert (terminated, truncated, info["end_reason"]) == (False, True, reason)
    assert info["answers"] == list(env.task.answers)


@pytest.mark.parametrize(
    ("budget", "told"),
    [
        (5, "budget: expected a mapping like {seconds: 60}, got 5"),
        ({"turns": 2.0}, "budget turns: expected a whole number above 0 or null, got 2.0"),
        ({"characters_per_turn": 1e3}, "budget characters_per_turn: expected a whole number"),
        ({"seconds": float("nan")}, "budget seconds: expected a number above 0 or null, got nan"),
        ({"seconds": "5"}, "budget seconds: expected a number above 0 or null, got '5'"),
    ],
)
def test_a_budget_that_cannot_be_is_one_line(budget, told):
    with pytest.raises(OVDError, match=re.escape(told)):
        Budget.of(budget)


def test_a_natural_end_beats_every_budget():
    env = Echo(lambda env, action: ends(action), budget=over_every_budget(0))
    env.reset(seed=0)
    *_, terminated, truncated, info = env.step("stop")
    assert (terminated, truncated, info["end_reason"]) == (True, False, "answered")


def test_what_just_fits_a_budget_does_not_end_the_episode():
    budget = Budget(
        turns=3, characters_per_turn=4, characters=8, tokens=8, count_tokens=len, seconds=60
    )
    env = Echo(budget=budget)
    env.reset(seed=0)
    assert env.step("four")[2:4] == (False, False)
    assert env.step("four")[2:4] == (False, False)
    assert env.step("")[2:4] == (False, True)


def test_characters_and_tokens_add_up_over_the_turns_and_start_anew_at_reset():
    env = Echo(budget=Budget(turns=None, characters=5))
    for _ in range(2):
        env.reset(seed=0)
        assert env.step("abc")[3] is False
        assert env.step("abc")[4]["end_reason"] == "character_limit"
    env = Echo(budget=Budget(turns=None, tokens=3, count_tokens=lambda text: len(text.split())))
    for _ in range(2):
        env.reset(seed=0)
        assert env.step("one two")[3] is False
        assert env.step("three four")[4]["end_reason"] == "token_limit"


def test_time_runs_from_reset():
    env = Echo(budget=Budget(turns=None, seconds=0.05))
    env.reset(seed=0)
    assert env.step("fast")[3] is False
    time.sleep(0.06)
    assert env.step("slow")[4]["end_reason"] == "time_limit"
    env.reset(seed=0)
    assert env.step("fast")[3] is False


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"turns": 0}, "turns"),
        ({"characters": -1}, "characters"),
        ({"turns": "3"}, "turns"),
        ({"turns": True}, "turns"),
        ({"tokens": 5}, "count_tokens"),
    ],
)
def test_bad_budgets_are_refused(fields, message):
    with pytest.raises(OVDError, match=message):
        Budget(**fields)


def test_a_mapping_is_a_budget():
    assert Echo(budget={"turns": 4, "characters": 9}).budget == Budget(turns=4, characters=9)
    with pytest.raises(OVDError, match="no field 'turn'"):
        Echo(budget={"turn": 4})


def test_steps_outside_an_episode_ask_for_reset():
    env = Echo()
    with pytest.raises(ResetNeeded):
        env.step("too early")
    with pytest.raises(ResetNeeded):
        _ = env.task
    env.reset(seed=0)
    env.step("the only turn")
    with pytest.raises(ResetNeeded):
        env.step("too late")


def test_no_episode_runs_where_observe_fails():
    def fail(task):
        raise RuntimeError("no")

    env = Echo(observe=fail)
    with pytest.raises(RuntimeError, match="no"):
        env.reset(seed=0)
    with pytest.raises(ResetNeeded):
        env.step("")


def test_an_action_is_a_text():
    env = Echo()
    env.reset(seed=0)
    with pytest.raises(TypeError, match="expected str, got int"):
        env.step(5)


def test_reset_options():
    env = Echo()
    task = Task("mine", "Mine?", ("yes",))
    assert env.reset(options={"task": task})[0] == "Mine?"
    assert env.reset(options={"split": "test"})[1]["task"] == "echo-last"
    assert env.reset(seed=0)[1]["task"] != "echo-last", "a split given to reset counts once"
    for options, message in [
        ({"taks": "echo-1"}, "unknown option 'taks'"),
        ({"task": "nowhere"}, "no task 'nowhere'"),
        ({"task": 5}, "a Task or an id"),
        ({"split": "dev"}, "expected one of train, test"),
    ]:
        with pytest.raises(TaskError, match=message):
            env.reset(options=options)


def test_constructor_options():
    with pytest.raises(TaskError, match="split: expected one of train, test"):
        Echo(split="dev")
    with pytest.raises(OVDError, match="render_mode"):
        Echo(render_mode="rgb_array")
    assert Echo(split="test").reset(seed=1)[1]["task"] == "echo-last"


@given(st.integers(0, 2**31))
def test_a_seed_gives_the_same_tasks(seed):
    one, two = Echo(), Echo()
    first = [one.reset(seed=seed), one.reset(), one.reset()]
    assert first == [two.reset(seed=seed), two.reset(), two.reset()]


def test_seeds_reach_many_tasks():
    env = Echo()
    assert len({env.reset(seed=seed)[1]["task"] for seed in range(200)}) > 40


def test_info_of_a_reply_is_passed_on_and_copied():
    kept = {"list": [1], "deep": [{"er": [[1.5, None, True, "x"]]}], "set": {1}}
    env = Echo(lambda env, action: Reply(info=kept), budget=Budget(turns=5))
    env.reset(seed=0)
    info = env.step("a")[4]
    before = copy.deepcopy(kept)
    kept["list"].append(2)
    kept["deep"][0]["er"][0].append(2)
    kept["deep"][0]["new"] = 1
    kept["set"].add(2)
    assert {name: info[name] for name in kept} == before


@pytest.mark.parametrize("name", ["answers", "task", "turn", "end_reason"])
def test_a_reply_cannot_give_away_the_answers_or_hide_what_the_base_class_tells(name):
    env = Echo(lambda env, action: Reply(info={name: ["7"]}), budget=Budget(turns=5))
    env.reset(seed=0)
    with pytest.raises(ValueError, match=name):
        env.step("a")


@given(st.lists(st.text(max_size=5), max_size=6))
def test_answers_are_in_info_at_the_end_and_never_before(actions):
    env = Echo(lambda env, action: ends(action), budget=Budget(turns=4))
    _, info = env.reset(seed=0)
    assert "answers" not in info
    for action in [*actions, "stop"]:
        *_, terminated, truncated, info = env.step(action)
        assert ("answers" in info) == (terminated or truncated) == bool(info["end_reason"])
        if terminated or truncated:
            break


def test_render(capsys):
    env = Echo(render_mode="ansi")
    env.reset(options={"task": "echo-1"})
    env.step("one")
    assert env.render() == "Say 1.\n> one\nyou said one"
    env = Echo(render_mode="human")
    env.reset(options={"task": "echo-1"})
    env.step("one")
    assert env.render() is None
    assert capsys.readouterr().out == "Say 1.\n> one\nyou said one\n"


def test_gymnasiums_checkers_have_nothing_to_object():
    natural = Echo(lambda env, action: Reply(end="answered"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*not having a spec.*")
        check_env(natural)


# Python warns of forking a process that has threads; Gymnasium forks.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize(("mode", "options"), [("sync", {}), ("async", {"shared_memory": False})])
def test_vector_environments_keep_every_observation(mode, options):
    env = gymnasium.make_vec(
        "ovd_envs:ovd/Math-v0",
        2,
        vectorization_mode=mode,
        vector_kwargs=options,
        attempts=2,
    )
    first, _ = env.reset(seed=3)
    second, rewards, terminated, *_ = env.step(["\\boxed{1}", "no idea \U0001f600"])
    env.close()
    assert all(text.startswith("What is") for text in first)
    assert second[0] == "That is not right. Try again."
    assert second[1].startswith("No final answer found.")
    assert list(rewards) == [0, 0]
    assert not any(terminated)


def test_shared_memory_which_would_lose_every_text_is_refused():
    with pytest.raises(ValueError, match="shared_memory"):
        gymnasium.make_vec("ovd_envs:ovd/Math-v0", 2, vectorization_mode="async")
