"""How far a run of episodes is, as a progress bar."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from agents.display import episode_view
from agents.episode import Episode
from agents.protocol import Agent
from agents.totals import Totals


class EpisodeBar:
    """A bar with the totals beside it; with ``each``, also every episode as it ends.

    It has the methods of ``agents.watch.LiveEpisodes``.
    """

    def __init__(self, totals: Totals, console: Console, *, each: bool = False) -> None:
        self._totals = totals
        self._each = each
        self._progress = Progress(
            TextColumn("episodes"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
            console=console,
        )
        self._bar = self._progress.add_task(
            "", total=totals.total, completed=totals.done, numbers=""
        )

    def __enter__(self) -> EpisodeBar:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def following(self, agent: Agent) -> Agent:
        """``agent`` itself: a bar needs to know nothing before an episode has ended."""
        return agent

    def ended(self, episode: Episode) -> None:
        """An episode has ended, and is counted in the totals."""
        self._progress.update(
            self._bar, completed=self._totals.done, numbers=self._totals.numbers()
        )
        if self._each:
            self._progress.console.print(episode_view(episode))
