import io
import json

import pytest
from rich.console import Console

from agents.episode import write_episodes
from teachers import score
from teachers.human_judge import HumanJudge
from tests.teachers.conftest import make_episode
from tests.terminal import Terminal, ovd


class Person:
    """Types these lines, then leaves (end of input)."""

    def __init__(self, *lines):
        self.lines = list(lines)
        self.prompts = []

    def __call__(self, prompt):
        self.prompts.append(prompt)
        if not self.lines:
            raise EOFError
        line = self.lines.pop(0)
        if isinstance(line, BaseException):
            raise line
        return line


def ask(*lines, n=3, **options):
    out = io.StringIO()
    person = Person(*lines)
    judge = HumanJudge(read=person, console=Console(file=out, width=80), **options)
    episodes = [make_episode(f"message {i}", index=i, reward=0.25) for i in range(n)]
    verdicts = score(judge, episodes)
    return [(v.score, v.reason, v.error) for v in verdicts], out.getvalue(), person


LEFT = (None, "", "not judged: the person left")


def test_scores_reasons_and_skips():
    verdicts, shown, _ = ask("7", "well done", "3 no evidence", "s", "")
    assert verdicts == [
        (7, "well done", None),
        (3, "no evidence", None),
        (None, "", "skipped by the person"),
    ]
    assert "message 0" in shown
    assert "1 of 3" in shown


def test_what_is_no_score_is_asked_for_again():
    verdicts, shown, _ = ask("10", "nine", "", "-1", "9", "", "", n=1)
    assert verdicts == [(9, "", None)]
    assert shown.count("expected 0-9") == 4


def test_undo_goes_back_also_at_the_end():
    verdicts, shown, _ = ask("u", "1 a", "2 b", "u", "3 c", "4 d", "u", "5 e", "", n=2)
    assert verdicts == [(1, "a", None), (5, "e", None)]
    assert "there is nothing to take back" in shown
    verdicts, *_ = ask("1", "u", "2", "", "", n=1)
    assert verdicts == [(2, "", None)]


@pytest.mark.parametrize("leave", ["q", KeyboardInterrupt(), EOFError()])
def test_leaving_keeps_what_was_answered(leave):
    verdicts, *_ = ask("7 good", leave)
    assert verdicts == [(7, "good", None), LEFT, LEFT]
    verdicts, *_ = ask("7 good", "8", leave)  # at the reason: the score stands
    assert verdicts == [(7, "good", None), (8, "", None), LEFT]
    verdicts, *_ = ask("7 good", "8", "x", "1", "", leave)
    assert verdicts == [(7, "good", None), (8, "x", None), (1, "", None)]


def test_nobody_is_asked_after_leaving():
    verdicts, _, person = ask("q", n=40)
    assert verdicts == [LEFT] * 40
    assert len(person.prompts) == 1


def test_neither_reward_nor_gold_nor_agent_is_shown():
    _, shown, _ = ask("s", "s", "s", "")
    assert "0.25" not in shown
    assert "95" not in shown
    assert "student" not in shown
    _, shown, _ = ask("s", "s", "s", "", show_gold=True)
    assert "gold answer: 95" in shown


def test_control_characters_are_shown_and_not_obeyed():
    out = io.StringIO()
    judge = HumanJudge(read=Person("0", "", ""), console=Console(file=out, force_terminal=True))
    score(judge, [make_episode("\x1b[2J[red]gone[/red]")])
    assert "\x1b[2J" not in out.getvalue()
    assert "[red]gone[/red]" in out.getvalue()


def test_at_a_real_terminal(tmp_path):
    write_episodes(
        tmp_path / "e.jsonl",
        [make_episode(f"word {i} " * 30, index=i) for i in range(3)],
    )
    out = tmp_path / "e.human.verdicts.jsonl"
    command = ovd(["score", tmp_path / "e.jsonl", "--judge", "human"])
    with Terminal(command) as terminal:
        terminal.wait_for("score ›")
        assert any("1 of 3" in line for line in terminal.lines)
        terminal.type("7\r")
        terminal.wait_for("reason (Enter: none) ›")
        terminal.type("fine\r")
        terminal.wait_for("2 of 3")
        terminal.wait_for("score ›", times=2)
        terminal.type("\x03")  # Ctrl-C loses nothing
        assert terminal.wait_for_end() == 1
        assert "(the same command asks again)" in " ".join(terminal.everything)
        assert "Traceback" not in "\n".join(terminal.everything)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["score"], row["reason"]) for row in rows] == [(7, "fine"), (None, ""), (None, "")]
    with Terminal(command) as terminal:  # the rest is asked for, and no more
        terminal.wait_for("1 of 2")
        terminal.wait_for("score ›")
        terminal.type("1 bad\r")
        terminal.wait_for("2 of 2")
        terminal.wait_for("score ›", times=2)
        terminal.type("2 worse\r")
        terminal.wait_for("Enter saves")
        terminal.type("\r")
        assert terminal.wait_for_end() == 0
        assert all(len(line) <= 80 for line in terminal.lines)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["score"] for row in rows] == [7, 1, 2]
