from __future__ import annotations

import gymnasium
import pytest

import ovd_envs
from ovd_envs import Budget, ListTasks, Reply, Task, TextEnv
from ovd_envs.checker import check_environment
from ovd_envs.registry import ENVIRONMENTS


def tasks(prefix="", count=5):
    return [Task(f"{prefix}{n}", f"{prefix}{n}?", (f"gold{n}",)) for n in range(count)]


class Good(TextEnv):
    """An environment without fault; each class below has one."""

    def __init__(self, *, split="train", render_mode=None):
        super().__init__(self.source(), split=split, render_mode=render_mode)

    def source(self):
        return ListTasks("good", train=tasks(), test=tasks("t"))

    def observe(self, task):
        return task.question

    def respond(self, action):
        return Reply(reward=float(action in self.task.answers), end="answered")


class WrongGold(Good):
    def respond(self, action):
        return Reply(reward=float(action == "something else"), end="answered")


class PaysForSilence(Good):
    def respond(self, action):
        return Reply(reward=1.0, end="answered")


class Unsteady(Good):
    count = 0

    def observe(self, task):
        Unsteady.count += 1
        return f"{task.question} {Unsteady.count}"


class AlwaysTheSame(Good):
    def reset(self, *, seed=None, options=None):
        options = {"task": self.tasks.task("train", 0)} | (options or {})
        return super().reset(seed=seed, options=options)


class Endless(Good):
    def __init__(self, **options):
        super().__init__(**options)
        self.budget = Budget(turns=None)

    def respond(self, action):
        right = action in self.task.answers
        return Reply(reward=float(right), end="answered" if right else None)


class ThreeTurns(Endless):
    def __init__(self, **options):
        super().__init__(**options)
        self.budget = Budget(turns=3)


class TellsTheGold(ThreeTurns):
    def respond(self, action):
        right = action in self.task.answers
        info = {"hint": self.task.answers[0]}
        return Reply(reward=float(right), end="answered" if right else None, info=info)


class TellsTheGoldInWords(ThreeTurns):
    def respond(self, action):
        right = action in self.task.answers
        hint = "" if right else f"No, it is {self.task.answers[0]}."
        return Reply(hint, reward=float(right), end="answered" if right else None)


class ShowsAText(TellsTheGoldInWords):
    """The answer stands in the text that is asked about: no secret."""

    def observe(self, task):
        return f"Read: {task.answers[0]} came late. {task.question}"


class ListsTheMoves(TellsTheGoldInWords):
    """What it says to all alike holds the answer to some."""

    def source(self):
        train = [Task(str(n), f"{n}?", (("north", "south")[n % 2],)) for n in range(5)]
        return ListTasks("good", train=train, test=tasks("t"))

    def respond(self, action):
        right = action in self.task.answers
        return Reply("Say north or south.", reward=float(right), end="answered" if right else None)


class CallsAFieldAsTheGold(ThreeTurns):
    """Its budget ends it; every info has the field "turn"."""

    def source(self):
        train = [Task(str(n), f"{n}?", ("turn",)) for n in range(5)]
        return ListTasks("good", train=train, test=tasks("t"))


class OverlapsLate(Good):
    def source(self):
        train, test = tasks(count=1_000), tasks("t", count=999)
        source = ListTasks("bad", train=train, test=test)
        source._tasks["test"].append(Task("again", "999?", ("gold999",)))
        source._by_id["again"] = source._tasks["test"][-1]
        return source


class Fragile(Good):
    def respond(self, action):
        action.encode("ascii")
        return super().respond(action)


class OddInfo(Good):
    def respond(self, action):
        right = float(action in self.task.answers)
        return Reply(reward=right, end="answered", info={"when": {1, 2}})


class EndsBothWays(Good):
    def step(self, action):
        observation, reward, terminated, _, info = super().step(action)
        return observation, reward, terminated, terminated, info


class NoObservation(Good):
    def respond(self, action):
        right = float(action in self.task.answers)
        return Reply(observation=None, reward=right, end="answered")


class Overlapping(Good):
    def source(self):
        source = ListTasks("bad", train=tasks(), test=tasks("t"))
        source._tasks["test"].append(Task("again", "3?", ("gold3",)))
        source._by_id["again"] = source._tasks["test"][-1]
        return source


@pytest.fixture
def check():
    """A function that registers an environment, checks it and gives the checks that failed."""
    names = []

    def run(factory, **options):
        name = f"test/{factory.__name__}-v0"
        names.append(name)
        ovd_envs.register(name, factory)
        return {r.name: r.detail for r in check_environment(name, options) if not r.passed}

    yield run
    for name in names:
        del ENVIRONMENTS._entries[name]
        del gymnasium.registry[name]


def test_an_environment_without_fault_passes(check):
    assert check(Good) == {}


@pytest.mark.parametrize("factory", [ShowsAText, ListsTheMoves, CallsAFieldAsTheGold])
def test_what_is_no_fault_passes(check, factory):
    assert check(factory) == {}


def test_ours_pass(shared_data):
    for options in ({}, {"attempts": 3, "level": "word-3"}, {"level": "mixed"}):
        assert all(r.passed for r in check_environment("ovd/Math-v0", options, tasks=5))


@pytest.mark.parametrize(
    ("factory", "failed", "message"),
    [
        (WrongGold, "gold answers", "expected more reward than for saying nothing (0), got 0"),
        (PaysForSilence, "gold answers", "expected more reward than for saying nothing (1), got 1"),
        (PaysForSilence, "odd messages", "expected no reward, got 1"),
        (Unsteady, "seeds", "reset(seed=0) twice"),
        (Unsteady, "Gymnasium's checker", "non-deterministic"),
        (AlwaysTheSame, "seeds", "expected different tasks, got '0' every time"),
        (Endless, "ends", "expected an end within 1000 turns"),
        (TellsTheGold, "gold answers stay secret", "info tells a gold answer before the end"),
        (TellsTheGoldInWords, "gold answers stay secret", "tells the gold answer 'gold0': 'No, it"),
        (OverlapsLate, "splits", "splits 'train' and 'test' share '999?'"),
        (Fragile, "odd messages", "UnicodeEncodeError"),
        (OddInfo, "odd messages", "info is not plain JSON"),
        (EndsBothWays, "ends", "either terminated or truncated at the end, got both"),
        (NoObservation, "Gymnasium's checker", "not within the observation space"),
        (Overlapping, "splits", "splits 'train' and 'test' share '3?'"),
    ],
)
def test_each_fault_is_found_and_explained(check, factory, failed, message):
    found = check(factory)
    assert failed in found
    assert message in found[failed]


def test_an_unknown_environment_is_an_error_and_no_report():
    with pytest.raises(ovd_envs.RegistrationError):
        check_environment("test/Nothing-v0")
