"""`ovd play --with-student` on a real terminal: what a person sees after each step."""

import json
import re

import pytest
from wcwidth import wcswidth

from agents.episode import read_episodes
from tests.terminal import Terminal, ovd

#: A student that says long and hostile things, as soon as the file GATE is there.
STUDENT = """
import time
from pathlib import Path
import agents
from agents.scripted import ScriptedAgent
MESSAGES = [
    "First I add the tens, then the ones, then both; that is what I always do. " * 3,
    "\\x1b[2J\\x1b[31m[bold]7[/bold]\\twide " + "漢字" * 40,
    "\\\\boxed{3}",
    "\\\\boxed{4}",
]
def message(episode):
    while GATE and not Path(GATE).exists():
        time.sleep(0.01)
    return MESSAGES[len(episode.turns)]
agents.load_student = lambda name, **options: ScriptedAgent(message, name)
"""
PLAY = ["play", "ovd/Math-v0", "--seed", "7", "-e", "attempts=4", "--with-student", "runs/pupil"]


def start(*more, gate="", columns=80, rows=24):
    code = ovd([*PLAY, *more], before=f"GATE = {str(gate)!r}{STUDENT}")
    return Terminal(code, columns=columns, rows=rows)


def is_well_drawn(lines, width):
    """Whether every box is closed on both sides, at the edge."""
    boxes = [line for line in lines if line[:1] in tuple("│╭╰")]
    assert [line for line in boxes if line[-1] not in "│╮╯" or wcswidth(line) != width] == []
    assert len(boxes) > 5
    return True


def test_a_whole_episode_in_80_by_24(tmp_path):
    out = tmp_path / "mine.jsonl"
    with start("--out", str(out)) as terminal:
        lines = terminal.wait_for("you ›")
        assert lines[0] == "ovd/Math-v0 · seed 7 · with runs/pupil · Ctrl-C leaves"
        assert lines[1].startswith("╭─ math-addition/train/")
        assert re.search(r"What is \d+ \+ \d+\? Give the final answer", lines[2])
        assert lines[4].startswith("╭─ runs/pupil would say ─")
        assert "".join(line[2:-2] for line in lines[5:8]).count("that is what I always do.") == 3
        assert lines[9:] == [
            "Enter sends it · or type your own · /student: it goes on alone",
            "you ›",
            *[""] * 13,
        ]
        assert (terminal.screen.cursor.x, terminal.screen.cursor.y) == (6, 10)
        assert is_well_drawn(lines, 80)

        terminal.type("\\boxed{-5}\r")
        shown = "\n".join(terminal.wait_for("you ›", times=2))
        assert "you › \\boxed{-5}\n╭─ turn 2 ─" in shown
        assert "│ That is not right" in shown
        assert "␛[2J␛[31m[bold]7[/bold]" in shown, "shown, not obeyed"
        assert terminal.everything[0].startswith("ovd/Math-v0"), "the screen was not cleared"

        terminal.type("\r")
        shown = "\n".join(terminal.wait_for("you ›", times=3))
        assert "you ›\nsent: runs/pupil's message\n╭─ turn 3 ─" in shown
        assert "│ \\boxed{3} " in shown

        terminal.type("/student\r")
        lines = terminal.wait_for("watching ›")
        assert "Enter: next turn · /me: you go on · Ctrl-D: to the end" in lines
        assert "╭─ turn 4 ─" in "\n".join(lines)
        terminal.type("/me\r")
        assert "│ \\boxed{4} " in "\n".join(terminal.wait_for("you ›", times=4))

        terminal.type("\\boxed{-9}\r")
        assert terminal.wait_for_end() == 0
        assert is_well_drawn(terminal.everything, 80)
        shown = "\n".join(terminal.everything)
        assert "is writing" not in shown, "nothing is left of what was under way"
        for once in ("╭─ turn 2", "╭─ turn 3", "╭─ turn 4", "╭─ score", "you › \\boxed{-9}"):
            assert shown.count(once) == 1, once
        assert "│ turns written by: human 2, runs/pupil 2" in "\n".join(terminal.lines)
        assert terminal.echoes
        assert not terminal.screen.cursor.hidden
    [episode] = read_episodes(out)
    assert episode.info["written_by"] == ["human", "runs/pupil", "runs/pupil", "human"]
    assert json.loads(out.read_text())["turns"][0]["action"] == "\\boxed{-5}"


@pytest.mark.parametrize(("columns", "rows"), [(40, 10), (12, 4)])
def test_a_small_terminal(columns, rows):
    with start(columns=columns, rows=rows) as terminal:
        for number, keys in enumerate(("mine\r", "\r", "/student\r"), start=1):
            terminal.wait_for("you ›", times=number)
            terminal.type(keys)
        terminal.wait_for("watching ›")
        terminal.type("\x04")
        assert terminal.wait_for_end() == 0
        assert is_well_drawn(terminal.everything, columns)
        assert "score" in "".join(terminal.everything)


def test_an_enter_that_was_meant_for_something_else_sends_nothing(tmp_path):
    gate = tmp_path / "gate"
    with start(gate=gate) as terminal:
        terminal.wait_for("runs/pupil is writing")
        terminal.type("\rhello\r/student\r")
        gate.touch()
        lines = terminal.wait_for("you ›")
        assert lines[9:12] == [
            "Enter sends it · or type your own · /student: it goes on alone",
            "you ›",
            "",
        ]
        terminal.read(0.5)
        assert terminal.lines == lines


@pytest.mark.parametrize("when", ["is writing", "you ›", "watching ›"])
def test_ctrl_c_leaves_and_saves_nothing(tmp_path, when):
    out = tmp_path / "mine.jsonl"
    with start(
        "--out", str(out), gate=tmp_path / "gate" if when == "is writing" else ""
    ) as terminal:
        if when == "watching ›":
            terminal.wait_for("you ›")
            terminal.type("/student\r")
        terminal.wait_for(when)
        terminal.type("\x03")
        assert terminal.wait_for_end() == 130
        assert "left: nothing was saved" in terminal.lines
        assert "is writing" not in "\n".join(terminal.lines)
        assert terminal.echoes
        assert not terminal.screen.cursor.hidden
    assert not out.exists()


def test_ctrl_d_leaves_where_the_person_has_the_say():
    with start() as terminal:
        terminal.wait_for("you ›")
        terminal.type("\x04")
        assert terminal.wait_for_end() == 2
        shown = " ".join(terminal.lines)
        assert (
            "error: the input ended in turn 1, before the episode did: nothing was saved" in shown
        )
