"""What a person sees of a run: a live view in a terminal, plain lines elsewhere, and the end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from agents.display import printable
from agents.episode import Episode
from training.config import Config


class RunDisplay:
    """A ``Reporter`` for a terminal: the newest steps, the evaluations, what is going on.

    Where the output is not a terminal each step is one line. Use it as a context manager.
    """

    def __init__(self, config: Config, path: str, console: Console | None = None) -> None:
        self.console = console or Console()
        self.config = config
        self.path = path
        self.steps: list[dict[str, Any]] = []
        self.evaluations: list[dict[str, Any]] = []
        self.began = time.monotonic()
        self.fresh_steps = 0
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<13}"),
            BarColumn(),
            MofNCompleteColumn(),
            console=self.console,
        )
        self.bar = self.progress.add_task("starting", total=None)
        self.live = Live(
            get_renderable=self.view, console=self.console, refresh_per_second=4, transient=True
        )

    def __enter__(self) -> RunDisplay:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.console.is_terminal:
            self.live.stop()
            self.console.print(self.table())

    def phase(self, name: str, total: int) -> None:
        """Something of ``total`` parts begins; 0 parts: it cannot be counted."""
        self.progress.reset(self.bar, description=name, total=total or None)

    def advance(self) -> None:
        """One more part is done."""
        self.progress.advance(self.bar)

    def stepped(self, metrics: dict[str, Any]) -> None:
        """A step has ended."""
        self.steps.append(metrics)
        self.fresh_steps += 1
        if not self.console.is_terminal:
            row = " ".join(
                f"{name} {value}" for name, value in zip(_COLUMNS, self._row(metrics), strict=True)
            )
            self.console.print(row, soft_wrap=True, highlight=False)

    def evaluated(self, result: dict[str, Any]) -> None:
        """An evaluation has ended."""
        self.evaluations.append(result)
        if not self.console.is_terminal:
            line = f"evaluation after step {result['step']}: student alone {share(result)}"
            self.console.print(line, soft_wrap=True, highlight=False)

    def _row(self, m: dict[str, Any]) -> list[str]:
        known = [e for e in self.evaluations if e["step"] <= m["step"]]
        seconds = m["time"]["collect"] + m["time"]["learn"]
        return [
            f"{m['step']}/{self.config.optimizer.steps}",
            "-" if m["alpha"] is None else f"{m['alpha']:.2f}",
            "-" if m["reward"] is None else f"{m['reward']:.2f}",
            f"{known[-1]['accuracy']:.1%}" if known else "-",
            str(m["teacher_episodes"]),
            f"{m['loss']:+.3f}",
            f"{m['time']['tokens_per_second']:.0f}",
            f"{seconds:.1f}",
        ]

    def time_left(self) -> str:
        """An estimate from the newest steps of this process, evaluations counted."""
        if not self.fresh_steps:
            return "-"
        rest = self.config.optimizer.steps - self.steps[-1]["step"]
        recent = self.steps[-self.fresh_steps :][-5:]
        each = sum(m["time"]["collect"] + m["time"]["learn"] for m in recent) / len(recent)
        seconds = rest * each
        if self.evaluations:
            due = self.config.optimizer.steps // self.config.evaluation.every
            left = max(due + 1 - len(self.evaluations), 0)
            seconds += left * float(self.evaluations[-1].get("seconds", 0.0))
        return f"{int(seconds // 60)}:{int(seconds % 60):02d}"

    def table(self) -> RenderableType:
        """The newest steps that fit, newest last."""
        room = max(min(self.console.height - 8, 20), 4)
        table = Table(box=None, padding=(0, 1), header_style="bold")
        for name in _COLUMNS:
            table.add_column(name, justify="right")
        for metrics in self.steps[-room:]:
            table.add_row(*self._row(metrics))
        return table

    def view(self) -> RenderableType:
        """The whole live view."""
        parts: list[RenderableType] = []
        if self.steps:
            parts.append(self.table())
        if self.evaluations:
            newest = self.evaluations[-1]
            line = Text.assemble(
                ("student alone, greedy: ", "bold"),
                share(newest),
                (f"  (after step {newest['step']})", "dim"),
            )
            parts.append(line)
        parts.append(self.progress)
        elapsed = int(time.monotonic() - self.began)
        parts.append(
            Text(
                f"{elapsed // 60}:{elapsed % 60:02d} gone, {self.time_left()} left · "
                "Ctrl-C stops, --resume goes on",
                style="dim",
            )
        )
        config = self.config
        title = f"{config.algorithm.name} · {config.student} · {config.env} · {self.path}"
        return Panel(Group(*parts), title=printable(title), title_align="left", border_style="cyan")


_COLUMNS = ("step", "alpha", "reward", "accuracy", "teacher", "loss", "tok/s", "seconds")


def share(result: dict[str, Any]) -> str:
    """An accuracy with its interval and n, e.g. "86.0 % [80.5, 90.1] of 200"."""
    low, high = result["interval"]
    return f"{result['accuracy']:.1%} [{low:.1%}, {high:.1%}] of {result['n']}"


def summary_table(summary: dict[str, Any], config: Config) -> Table:
    """Before and after, each with its 95 % interval."""
    title = f"{config.env}: the student alone, greedy, on held-out tasks"
    table = Table(title=title, min_width=76)
    table.add_column("")
    for name in ("accuracy", "95 % interval", "n"):
        table.add_column(name, justify="right")
    for name in ("before", "after"):
        if result := summary.get(name):
            low, high = result["interval"]
            table.add_row(
                name, f"{result['accuracy']:.1%}", f"{low:.1%} - {high:.1%}", str(result["n"])
            )
    seconds = summary["train_seconds"]
    table.caption = (
        f"{summary['steps']} steps in {int(seconds // 60)}:{int(seconds % 60):02d} of training, "
        f"{summary['student_episodes']} student episodes, "
        f"{summary['teacher_episodes']} teacher episodes"
    )
    return table


def side_by_side(before: Sequence[Episode], after: Sequence[Episode], count: int) -> Table:
    """The same tasks before and after, the ones that changed first."""
    later = {episode.task.id: episode for episode in after}
    pairs = [(e, later[e.task.id]) for e in before if e.task.id in later]
    pairs.sort(key=lambda pair: pair[0].reward - pair[1].reward)
    table = Table(title="the same tasks, before and after", show_lines=True)
    for name in ("task", "before", "after"):
        table.add_column(name, overflow="fold", ratio=1)
    for first, second in pairs[:count]:
        table.add_row(printable(first.observation), _messages(first), _messages(second))
    return table


def _messages(episode: Episode) -> Group:
    mark = Text("✓ right" if episode.reward >= 1 else f"✗ reward {episode.reward:g}")
    mark.stylize("green" if episode.reward >= 1 else "red")
    parts: list[RenderableType] = []
    for turn in episode.turns:
        parts.append(printable(turn.action))
        if turn.observation:
            parts.append(printable(turn.observation, style="dim"))
    return Group(*parts, mark)
