"""A person at the keyboard: what is shown, what is read, and an input that ends too early."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from agents import rollout
from agents.display import episode_view, printable
from agents.episode import Episode, Turn
from agents.human import HumanAgent, Left
from ovd_envs import Task, make
from ovd_envs.math_env import MathEnv

ENV = "ovd/Math-v0"


def person(lines):
    """An agent that types ``lines``, and what it saw."""
    screen = Console(file=io.StringIO(), width=80)
    left = iter(lines)

    def read(prompt):
        screen.print(prompt, end="", markup=False)
        try:
            return next(left)
        except StopIteration:
            raise EOFError from None

    return HumanAgent(console=screen, read=read), screen.file


def play(lines, **options):
    agent, screen = person(lines)
    [episode] = rollout(agent, ENV, make(ENV).tasks.distinct("test", 1), env_options=options)
    return episode, screen.getvalue()


def test_sees_the_question_and_the_feedback_and_is_scored():
    task = make(ENV).tasks.task("test", 0)
    gold = task.answers[0]
    episode, screen = play(["\\boxed{-5}", f"\\boxed{{{gold}}}"], attempts=2)
    assert [turn.action for turn in episode.turns] == ["\\boxed{-5}", f"\\boxed{{{gold}}}"]
    assert (episode.agent, episode.reward, episode.end_reason) == ("human", 1.0, "answered")
    assert task.question in screen
    assert screen.index(task.question) < screen.index("turn 2") < screen.index("That is not right")


def test_a_system_message_is_shown_before_the_question():
    class Told(MathEnv):
        system = "Answer like a pirate."

    agent, screen = person(["\\boxed{1}"])
    rollout(agent, Told, make(ENV).tasks.distinct("test", 1))
    shown = screen.getvalue()
    assert shown.index("Answer like a pirate.") < shown.index("What is")


def test_the_gold_answer_is_not_shown_while_the_episode_runs():
    task = Task("t/test/0", "How many?", ("777123",))
    agent, screen = person(["\\boxed{1}", "\\boxed{2}"])
    rollout(agent, ENV, [task], env_options={"attempts": 2})
    assert "777123" not in screen.getvalue()


def test_a_backslash_at_the_end_goes_on_in_the_next_line():
    episode, screen = play(["first \\", "second\\", "\\boxed{3}"])
    assert episode.turns[0].action == "first \nsecond\n\\boxed{3}"
    assert screen.count("…") == 2


def test_an_input_that_ends_early_ends_the_rollout_and_is_no_error_episode():
    with pytest.raises(Left, match="ended in turn 2"):
        play(["\\boxed{-5}"], attempts=2)
    assert issubclass(Left, KeyboardInterrupt)


def test_what_an_environment_writes_is_shown_and_not_obeyed():
    hostile = "\x1b[2J\x1b[31mred[/] [bold]x[/bold] \u202eevil\u202c \ud800 \r\nnext\a"
    episode = Episode(Task("t", hostile, ()), "e", "a", observation=hostile)
    episode.turns.append(Turn(hostile, hostile))
    out = io.StringIO()
    Console(file=out, width=200, force_terminal=True, color_system=None).print(
        episode_view(episode)
    )
    shown = out.getvalue()
    shown.encode()  # no lone surrogate
    for unsafe in ("\x1b[2J", "\x1b[31m", "\u202e", "\a", "\r"):
        assert unsafe not in shown
    assert shown.count("[bold]x[/bold]") == 3
    assert "␛[2J" in shown


@given(st.text(st.characters(codec=None)))
def test_printable_keeps_what_is_harmless_and_only_that(text):
    shown = printable(text).plain
    assert not set(shown) & {chr(c) for c in (*range(9), *range(11, 32), *range(127, 160))}
    shown.encode()
    harmless = "".join(c for c in text if c.isalnum() or c in " \n\t[]\\")
    assert "".join(c for c in shown if c.isalnum() or c in " \n\t[]\\") == harmless
