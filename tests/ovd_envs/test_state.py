"""Snapshot and restore: the restored environment goes on as the original does."""

import copy
import time

import gymnasium
import pytest
from gymnasium.wrappers import TimeLimit, TransformObservation
from hypothesis import given, settings
from hypothesis import strategies as st

import ovd_envs
from ovd_envs import (
    Budget,
    ListTasks,
    OVDError,
    Reply,
    SnapshotError,
    Task,
    TextEnv,
    restore,
    snapshot,
)
from ovd_envs.state import recorded

TASKS = ListTasks("dice", train=[Task(f"d{n}", f"Roll {n}.", ("6",)) for n in range(9)])


class Dice(TextEnv):
    """An environment without a state of its own to save: it is played again."""

    def __init__(self, **options):
        super().__init__(TASKS, **{"budget": Budget(turns=6), **options})
        self.observed = 0

    def observe(self, task):
        self.rolls = [int(self.np_random.integers(6))]
        self.observed += 1
        return f"{task.question} You have {self.rolls[0]}."

    def respond(self, action):
        self.rolls.append(int(self.np_random.integers(6)))
        end = "answered" if action == "stop" else None
        return Reply(f"{action}: {self.rolls}", self.rolls[-1] / 8, end, {"rolls": self.rolls})


class Forgetful(Dice):
    """Not the same twice: the third observation counts how often it was begun."""

    def respond(self, action):
        reply = super().respond(action)
        return Reply(f"{self.observed if self.turn == 2 else ''}{reply.observation}")


def dice():
    return Dice(budget={"turns": 5, "characters": 30})


def math():
    return ovd_envs.make("ovd/Math-v0", attempts=4, budget={"characters": 60})


def world(**options):
    return ovd_envs.make("ovd/WorldQA-v0", hops=2, people=60, **options)


def wrapped():
    return TimeLimit(gymnasium.make("ovd/WorldQA-v0", hops=2, people=60, turns=9), 3)


def wrapped_dice():
    return TimeLimit(dice(), 4)


#: "{0}" and "{1}": titles of the path; "{a}": the answer.
MESSAGES = {
    "dice": ["roll", "again and again", "stop"],
    "math": [r"\boxed{{1}}", "hm", r"It is \boxed{{{a}}}.", "x" * 40],
    "world": [
        "<search>{0}</search>",
        "<search>{1}</search>",
        "<search></search>",
        "<open>1</open>",
        "<open>9</open>",
        "well",
        "<answer>{a}</answer>",
        "<answer>no</answer>",
    ],
}
WORLDS = {
    "dice": (dice, "dice"),
    "wrapped_dice": (wrapped_dice, "dice"),
    "math": (math, "math"),
    "world": (world, "world"),
    "world in its wrappers": (wrapped, "world"),
}


def told(env, kind, picks):
    task = env.unwrapped.task
    titles = [str(hop["title"]) for hop in task.metadata.get("path", ())]
    words = MESSAGES[kind]
    return [words[p % len(words)].format(*titles, a=task.answers[0]) for p in picks]


def play(env, messages):
    """What came of each message, to the end of the episode or of the messages."""
    came = []
    for message in messages:
        came.append(copy.deepcopy(env.step(message)))
        if came[-1][2] or came[-1][3]:
            break
    return came


@pytest.mark.parametrize("name", WORLDS)
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 5),
    before=st.lists(st.integers(0, 20), max_size=3),
    after=st.lists(st.integers(0, 20), min_size=1, max_size=4),
    other=st.lists(st.integers(0, 20), max_size=3),
)
def test_a_restored_environment_goes_on_as_the_original(name, seed, before, after, other):
    make, kind = WORLDS[name]
    env, second = make(), make()
    env.reset(seed=seed)
    past = play(env, told(env, kind, before))
    if past and (past[-1][2] or past[-1][3]):
        return
    state = snapshot(env)
    # The second has been elsewhere, and begins elsewhere in its random numbers.
    second.reset(seed=seed + 1)
    play(second, told(second, kind, other))
    restore(second, state)
    messages = told(env, kind, after)
    assert told(second, kind, after) == messages
    expected = play(env, messages)
    assert play(second, messages) == expected
    # Neither changed the state, and it serves again: in the environment that it was taken from.
    restore(env, state)
    assert play(env, messages) == expected
    assert env.unwrapped.task == second.unwrapped.task
    assert env.unwrapped.turn == second.unwrapped.turn
    # The next draw of a task is the same one too.
    assert env.reset()[0] == second.reset()[0]


@pytest.mark.parametrize("name", ["dice", "math", "world"])
def test_a_recorded_episode_is_a_state_too(name):
    make, kind = WORLDS[name]
    env = make()
    task = env.tasks.task("train", 1)
    first, _ = env.reset(seed=7, options={"task": task})
    messages = told(env, kind, [0, 1])
    steps = [(m, s[0], s[1]) for m, s in zip(messages, play(env, messages), strict=True)]
    again = make()
    restore(again, recorded(type(env).__name__, task, 7, first, steps))
    assert again.step(messages[0]) == env.step(messages[0])


def test_a_replay_that_differs_names_the_turn():
    env = Forgetful()
    env.reset(seed=0)
    play(env, ["a", "b", "c"])
    state = env.snapshot()
    with pytest.raises(SnapshotError, match=r"the observation of turn 2 differs, expected '1b: "):
        env.restore(state)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step("d")
    task = TASKS.task("train", 0)
    with pytest.raises(SnapshotError, match="the observation of turn 0 differs"):
        Dice().restore(recorded("Dice", task, 0, "Roll 9.", []))
    first = Dice().reset(seed=0, options={"task": task})[0]
    other = recorded("Dice", task, 0, first, [("a", "b", 0.0)])
    with pytest.raises(SnapshotError, match="turn 1 differs, expected 'b "):
        Dice().restore(other)
    ended = [("stop", *Dice.step(_at(task), "stop")[:2]), ("more", "", 0.0)]
    with pytest.raises(SnapshotError, match="ended before turn 2"):
        Dice().restore(recorded("Dice", task, 0, first, ended))


def _at(task):
    env = Dice()
    env.reset(seed=0, options={"task": task})
    return env


def test_what_is_no_state_of_this_environment_is_refused():
    env = math()
    with pytest.raises(SnapshotError, match="no episode has begun"):
        env.snapshot()
    env.reset(seed=0)
    with pytest.raises(SnapshotError, match="expected a state of Dice, got of MathEnv"):
        dice().restore(env.snapshot())
    inside = TimeLimit(math(), 3)
    inside.reset(seed=0)
    with pytest.raises(OVDError, match="expected an environment in TimeLimit"):
        restore(math(), snapshot(inside))
    with pytest.raises(SnapshotError, match="expected a TextEnv, got CartPoleEnv"):
        snapshot(gymnasium.make("CartPole-v1"))
    odd = TransformObservation(math(), lambda text: text, None)
    odd.reset(seed=0)
    odd.generator = (i for i in ())
    with pytest.raises(SnapshotError, match="wrapper TransformObservation: its state cannot"):
        snapshot(odd)


@pytest.mark.parametrize(
    "make",
    [
        lambda budget: ovd_envs.make("ovd/Math-v0", attempts=9, budget=budget),
        lambda budget: Dice(budget={"turns": 9, **budget}),  # is played again
    ],
)
def test_the_clock_of_a_budget_goes_on_where_it_was(make, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    env = make({"seconds": 10})
    env.reset(seed=0)
    now[0] += 6
    env.step("a")
    running = env.snapshot()
    now[0] += 6
    assert env.step("b")[4]["end_reason"] == "time_limit"
    ended = env.snapshot()
    now[0] += 1000
    env.restore(running)
    now[0] += 3
    assert not env.step("b")[3]
    now[0] += 2
    assert env.step("c")[4]["end_reason"] == "time_limit"
    env.restore(ended)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step("c")


class EndsSooner(Dice):
    """Played again it says the same, and ends."""

    def respond(self, action):
        reply = super().respond(action)
        return Reply(reply.observation, reply.reward, "answered" if self.observed > 1 else None)


def test_a_replay_that_ends_where_the_episode_went_on_is_told():
    env = EndsSooner()
    env.reset(seed=0)
    env.step("a")
    with pytest.raises(SnapshotError, match="the episode ended, expected one that goes on"):
        env.restore(env.snapshot())


class Raises(Dice):
    def respond(self, action):
        if action == "raise":
            raise RuntimeError("broken")
        return super().respond(action)


def test_an_episode_whose_environment_raised_has_ended():
    env = Raises()
    env.reset(seed=0)
    env.step("a")
    with pytest.raises(RuntimeError):
        env.step("raise")
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step("b")
    again = Raises()
    again.restore(env.snapshot())
    with pytest.raises(gymnasium.error.ResetNeeded):
        again.step("b")


def test_a_person_is_not_shown_a_replay(capsys):
    env = Dice(render_mode="human")
    env.reset(seed=0)
    env.step("a")
    state = env.snapshot()
    capsys.readouterr()
    env.restore(state)
    assert capsys.readouterr().out == ""
    assert env.render_mode == "human"
