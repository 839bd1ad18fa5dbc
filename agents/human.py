"""A person at the keyboard as an agent."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.panel import Panel

from agents.display import printable
from agents.episode import Episode
from agents.protocol import Act


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
        read: reads one line after showing a prompt, as ``input`` does; raises ``EOFError``.
    """

    def __init__(
        self,
        name: str = "human",
        *,
        console: Console | None = None,
        read: Callable[[str], str] | None = None,
    ) -> None:
        self.name = name
        self.console = console or Console()
        self._read = read or _read_line

    def act(self, episodes: Sequence[Episode]) -> list[Act]:
        """Ask the person for the next message of each episode.

        Raises ``Left`` where the input ends.
        """
        return [Act(self._ask(episode), stop="end_of_turn") for episode in episodes]

    def _ask(self, episode: Episode) -> str:
        turn = len(episode.turns)
        observation = episode.turns[-1].observation if turn else episode.observation
        title = episode.task.id if turn == 0 else f"turn {turn + 1}"
        self.console.print(
            Panel(printable(observation), title=printable(title), title_align="left")
        )
        lines: list[str] = []
        while True:
            try:
                line = self._read("… " if lines else "you › ")
            except EOFError:
                raise Left(f"the input ended in turn {turn + 1}, before the episode did") from None
            if not line.endswith("\\"):
                return "\n".join([*lines, line])
            lines.append(line[:-1])


def _read_line(prompt: str) -> str:
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
