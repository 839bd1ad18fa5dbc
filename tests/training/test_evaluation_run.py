"""``ovd eval`` that stops: what had ended is kept, and the same command goes on."""

import json

import pytest

import agents
from agents.episode import read_episodes
from agents.scripted import ScriptedAgent
from ovd_envs import OVDError
from tests.command_line import invoke
from training.commands import register_commands

ENV = "ovd/Math-v0"


@pytest.fixture
def ovd(capsys):
    """Runs a command line that ends well; gives what it printed."""

    def call(*arguments):
        assert invoke(register_commands, *arguments) == 0
        return capsys.readouterr().out

    return call


class Student(ScriptedAgent):
    """Right where the sum is even; ``left`` calls until Ctrl-C."""

    left = 1000

    def __init__(self, name):
        super().__init__(self.say, name)
        self.asked = []

    def say(self, episode):
        self.asked.append(episode.seed)
        gold = int(episode.task.answers[0])
        return f"\\boxed{{{gold if gold % 2 == 0 else -1}}}"

    def act(self, episodes):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().act(episodes)


@pytest.fixture
def loaded(monkeypatch):
    """Every student that a command has loaded, and how many calls each of the next ones has."""
    students, left = [], []

    def load_student(name, **options):
        student = Student(name)
        student.left = left.pop() if left else 1000
        students.append(student)
        return student

    monkeypatch.setattr(agents, "load_student", load_student)
    return students, left


def evaluate(*more):
    return ("eval", ENV, "--student", "fake", "--tasks", 6, "--batch-size", 2, "--json", *more)


def test_ctrl_c_keeps_what_has_ended_and_the_same_command_goes_on(ovd, loaded, tmp_path):
    students, left = loaded
    whole, stopped = tmp_path / "whole.jsonl", tmp_path / "stopped.jsonl"
    expected = json.loads(ovd(*evaluate("--out", whole)))
    plain = json.loads(ovd(*evaluate()))
    left.append(2)
    with pytest.raises(KeyboardInterrupt, match=r"4 of 6 .*stopped\.jsonl; the same command"):
        ovd(*evaluate("--out", stopped))
    assert len(list(read_episodes(stopped))) == 4
    found = json.loads(ovd(*evaluate("--out", stopped)))
    assert len(students[-1].asked) == 2
    for numbers in (expected, plain, found):
        del numbers["seconds"]
    assert found == expected == plain
    assert [(e.id, e.seed, e.answer) for e in read_episodes(stopped)] == [
        (e.id, e.seed, e.answer) for e in read_episodes(whole)
    ]


def test_what_is_there_is_read_without_loading_the_student(ovd, loaded, tmp_path):
    students, _ = loaded
    out = tmp_path / "e.jsonl"
    samples = ("--samples", 2, "--temperature", 1, "--out", out)
    first = json.loads(ovd(*evaluate(*samples)))
    again = json.loads(ovd(*evaluate(*samples)))
    assert len(students) == 1
    assert again["pass_at_k"] == first["pass_at_k"]


def test_episodes_of_something_else_are_not_mixed_in(ovd, loaded, tmp_path):
    out = tmp_path / "e.jsonl"
    ovd(*evaluate("--out", out))
    before = out.read_bytes()
    for more in (("--seed", 1), ("--max-tokens", 3), ("--temperature", 0.5)):
        with pytest.raises(OVDError, match="expected another --out"):
            ovd(*evaluate("--out", out, *more))
    assert out.read_bytes() == before


def test_ctrl_c_without_a_file_says_what_would_have_kept_them(ovd, loaded):
    loaded[1].append(1)
    with pytest.raises(KeyboardInterrupt, match="with --out FILE the same command would go on"):
        ovd(*evaluate())


def test_ctrl_c_while_the_teacher_is_beside_it_keeps_the_students_own(ovd, loaded, tmp_path):
    students, left = loaded
    out = tmp_path / "e.jsonl"
    more = ("--out", out, "--teacher-feedback", "outcome", "--gold-aware")
    left.append(3)
    with pytest.raises(KeyboardInterrupt):
        ovd(*evaluate(*more))
    assert len(list(read_episodes(out))) == 6
    result = json.loads(ovd(*evaluate(*more)))
    assert len(students[-1].asked) == result["teacher_feedback"]["retries"] > 0
    assert len(list(read_episodes(out.with_suffix(".feedback.jsonl")))) == 6
