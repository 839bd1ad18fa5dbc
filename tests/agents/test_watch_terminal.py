"""`ovd run --watch` on a real terminal: what is seen while it runs, and what is left of it."""

import json

import pytest

from agents.episode import read_episodes
from tests.terminal import Terminal, ovd

#: A student that speaks when it is allowed to: when a file is there for its turn and for its
#: task, counted in sixes. What it says would clear a screen that obeyed.
STUDENT = """
import sys, time
from pathlib import Path
import agents
import agents.watch
from agents.scripted import ScriptedAgent
agents.watch.HOLD_SECONDS = 3600
SAID = "thinking " + "of it " * 60 + "and done"
def message(episode):
    task, turn = episode.seed[2], len(episode.turns)
    while not (GATES / f"{task // 6}-{turn}").exists():
        time.sleep(0.01)
    if task == 1:
        print("a library speaks", file=sys.stderr)
    if turn == 1:
        return "\\\\boxed{" + (episode.task.answers[0] if task % 2 else "-1") + "}"
    return "\\x1b[2J\\x1b[H" + SAID
agents.load_student = lambda name, **options: ScriptedAgent(message, name)
"""


class Gates:
    """Lets the student speak, six tasks and one turn at a time."""

    def __init__(self, folder):
        self.folder = folder

    def open(self, *names):
        for name in names or ("0-0", "0-1", "1-0", "1-1"):
            (self.folder / name).touch()


def start(folder, *more, columns=80, rows=24, more_code=""):
    out = folder / "e.jsonl"
    arguments = ["run", "ovd/Math-v0", "-s", "pupil", "-e", "attempts=2", "--watch", "--out", out]
    student = f"{STUDENT}\nGATES = Path({str(folder)!r})\nprint('before')\n{more_code}"
    code = ovd([*arguments, *more], before=student)
    return Terminal(code, columns=columns, rows=rows)


@pytest.fixture
def gates(tmp_path):
    return Gates(tmp_path)


def test_while_it_runs_and_after(tmp_path, gates):
    with start(tmp_path, "--tasks", "12", "--batch-size", "6") as terminal:
        terminal.wait_for("6 running")
        assert terminal.lines[0].startswith("0/12 done · 0 tokens/s · 0:0"), "a screen of its own"
        for line in range(6):
            assert terminal.lines[1 + 3 * line].startswith(f"math-addition/test/{line} · 0 ")
            assert terminal.lines[1 + 3 * line].endswith(" turn 1")
            assert terminal.lines[2 + 3 * line].startswith("‹ What is ")
        gates.open("0-0")
        terminal.wait_until(lambda: terminal.lines[1].endswith(" turn 2"))
        assert terminal.lines[2].startswith("› …")
        assert terminal.lines[2].endswith("and done")
        assert terminal.lines[3].startswith("‹ ")
        gates.open("0-1")
        terminal.wait_until(lambda: terminal.lines[0].startswith("6/12 done · reward 0.500"))
        assert terminal.lines[1].endswith("turn 2 · reward 0 · answered")
        assert terminal.lines[4].endswith("turn 2 · reward 1 · answered")
        gates.open()
        assert terminal.wait_for_end() == 0
        lines = terminal.everything
        assert lines[0] == "before", "the screen is as it was, and goes on below"
        assert lines[1].startswith("math-addition/test/")
        assert "" not in lines[: lines.index(" mean reward  0.500")]
        assert "a library speaks" in terminal.everything
        shown = "\n".join(terminal.everything)
        assert "running" not in shown
        assert "loading" not in shown
        assert shown.count(" mean reward  0.500") == 1
        assert not terminal.screen.cursor.hidden
        assert terminal.echoes
    assert len(list(read_episodes(tmp_path / "e.jsonl"))) == 12


@pytest.mark.parametrize(("columns", "rows"), [(40, 10), (9, 3)])
def test_a_small_screen(tmp_path, gates, columns, rows):
    with start(tmp_path, "--tasks", "5", columns=columns, rows=rows) as terminal:
        terminal.wait_until(lambda: terminal.lines[0].startswith("0/5 done"))
        if rows > 3:
            terminal.wait_until(lambda: terminal.lines[7].startswith("math"))
            assert [line.split()[0] for line in terminal.lines[1::3]] == [
                f"math-addition/test/{n}" for n in range(3)
            ]
        gates.open()
        assert terminal.wait_for_end() == 0
    assert len(list(read_episodes(tmp_path / "e.jsonl"))) == 5


def test_a_screen_that_changes_its_size(tmp_path):
    with start(tmp_path, "--tasks", "12") as terminal:
        terminal.wait_for("12 running")
        terminal.resize(40, 10)
        terminal.wait_until(lambda: [x[:4] for x in terminal.lines[1::3]] == ["math"] * 3)
        terminal.resize(100, 40)
        terminal.wait_until(lambda: [x[:4] for x in terminal.lines[1:37:3]] == ["math"] * 12)
        assert terminal.lines[37:] == [""] * 3
        terminal.type("\x03")
        assert terminal.wait_for_end() == 130


def test_text_that_is_wider_than_anybody_thought_breaks_nothing(tmp_path, gates):
    # Rich takes a skin tone for a mark without a width; a terminal that does not join it to what
    # stands before it gives it two cells.
    said = "SAID = 'a\\U0001f3fe' * 200 + '\\U0001f468\\u200d\\U0001f469' + 'a\\U0001f3fe' * 50"
    with start(tmp_path, "--tasks", "6", more_code=said) as terminal:
        gates.open("0-0")
        terminal.wait_until(lambda: terminal.lines[1].endswith(" turn 2"))
        terminal.wait_until(lambda: terminal.lines[17].startswith("›"))  # drawn to its end
        assert terminal.lines[0].startswith("0/6 done")
        assert [line[:19] for line in terminal.lines[1:19:3]] == ["math-addition/test/"] * 6
        assert [line[:1] for line in terminal.lines[2:19:3]] == ["›"] * 6
        gates.open()
        assert terminal.wait_for_end() == 0
        assert 7 << 5 in terminal.screen.mode, "lines are wrapped as before"


def test_ctrl_c_gives_the_screen_back_and_says_what_is_saved(tmp_path, gates):
    with start(tmp_path, "--tasks", "12", "--batch-size", "6") as terminal:
        gates.open("0-0", "0-1", "1-0")
        terminal.wait_until(lambda: terminal.lines[0].startswith("6/12 done"))
        terminal.type("\x03")
        assert terminal.wait_for_end() == 130
        assert "stopped: 6 of 12 episodes are in" in " ".join(terminal.lines)
        assert terminal.everything[0] == "before"
        assert not terminal.screen.cursor.hidden
        assert terminal.echoes
    assert len(list(read_episodes(tmp_path / "e.jsonl"))) == 6


def test_where_standard_output_goes_elsewhere_each_is_shown_as_it_ends(tmp_path, gates):
    gates.open()
    elsewhere = f"sys.stdout = open({str(tmp_path / 'out.json')!r}, 'w')"
    with start(tmp_path, "--tasks", "2", "--json", more_code=elsewhere) as terminal:
        assert terminal.wait_for_end() == 0
        assert "running" not in terminal.raw.decode()
        assert "\n".join(terminal.everything).count("╭─ math-addition/test/") == 2
    assert json.loads((tmp_path / "out.json").read_text())["episodes"] == 2
