"""A person at the keyboard as an agent."""

from __future__ import annotations

import contextlib
import sys
import termios
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console
from rich.panel import Panel

from agents.display import printable
from agents.episode import Episode
from agents.protocol import Act

#: Reads one line after showing a prompt, as ``input`` does; raises ``EOFError``.
ReadLine = Callable[[str], str]


class Left(KeyboardInterrupt):
    """The person's input ended before the episode did.

    A ``KeyboardInterrupt``, so that it ends the rollout: an ``Exception`` would be filed as the
    agent's fault in an episode that the person never finished.
    """


class HumanAgent:
    """Shows each observation and reads each message; the episode is like any other agent's.

    One line is one message; a line that ends in a backslash goes on in the next.

    Args:
        name: the agent's name in its episodes.
        console: where the observations are shown (default: standard output).
        read: where the lines come from (default: standard input).
    """

    def __init__(
        self,
        name: str = "human",
        *,
        console: Console | None = None,
        read: ReadLine | None = None,
    ) -> None:
        self.name = name
        self.console = console or Console()
        self._read = read or read_line

    def act(self, episodes: Sequence[Episode]) -> list[Act]:
        """Ask the person for the next message of each episode.

        Raises ``Left`` where the input ends.
        """
        return [Act(self._ask(episode), stop="end_of_turn") for episode in episodes]

    def _ask(self, episode: Episode) -> str:
        show_observation(self.console, episode)
        try:
            return read_message(self._read, "you › ")
        except EOFError:
            raise left(episode) from None


def show_observation(console: Console, episode: Episode) -> None:
    """The newest observation of an episode, under the task's id or the number of the turn.

    What the environment says as a system message comes before the first.
    """
    turn = len(episode.turns)
    if turn == 0 and episode.system is not None:
        console.print(Panel(printable(episode.system), title="system", title_align="left"))
    observation = episode.turns[-1].observation if turn else episode.observation
    title = episode.task.id if turn == 0 else f"turn {turn + 1}"
    console.print(Panel(printable(observation), title=printable(title), title_align="left"))


def left(episode: Episode) -> Left:
    """What to raise where a person's input ends within an episode."""
    turn = len(episode.turns) + 1
    return Left(f"the input ended in turn {turn}, before the episode did")


def read_message(read: ReadLine, prompt: str) -> str:
    """One message: a line, and as many more as end in a backslash. Raises ``EOFError``."""
    lines: list[str] = []
    while True:
        line = read("… " if lines else prompt)
        if not line.endswith("\\"):
            return "\n".join([*lines, line])
        lines.append(line[:-1])


def read_line(prompt: str) -> str:
    """One line of standard input, with history and arrow keys on a terminal; see ``ReadLine``."""
    typed = sys.stdin.isatty()
    if typed:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - arrow keys and history for input()
    try:
        line = input(prompt)
    except EOFError:
        print()  # leave the line of the prompt
        raise
    if not typed:
        print(printable(line).plain)  # a pipe does not echo what it sends
    return line


@contextlib.contextmanager
def deaf_keyboard() -> Iterator[None]:
    """Within the block, what is typed on a terminal is neither shown nor kept.

    An Enter that was meant for something else must not answer a question that nobody has read
    yet. Ctrl-C works as ever; a pipe loses nothing.
    """
    if not sys.stdin.isatty():
        yield
        return
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    silent = [*before]
    silent[3] &= ~termios.ECHO
    termios.tcsetattr(keyboard, termios.TCSADRAIN, silent)
    try:
        yield
    finally:
        # TCSAFLUSH: what came in the meantime is thrown away.
        termios.tcsetattr(keyboard, termios.TCSAFLUSH, before)
