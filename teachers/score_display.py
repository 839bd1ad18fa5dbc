"""How ``ovd score`` shows where it stands."""

from __future__ import annotations

import time
from collections import deque

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from teachers.protocol import Judge
from teachers.spending import Spending
from teachers.verdict import Verdict

#: Seconds over which the speed is measured.
_WINDOW = 10.0


class ScoreProgress:
    """A progress bar on stderr, a context manager.

    It shows episodes done, the mean score, verdicts a second, failures of the judge and the money
    spent, and above it the lines that ``notice`` gets, e.g. of an outage. Where a person at the
    terminal is the judge, nothing else writes on it.
    """

    def __init__(self, total: int, judge: Judge) -> None:
        self.total = total
        self.interactive = bool(getattr(judge, "interactive", False))
        self.told = self.new = self.failed = 0
        self._sum = 0.0
        self._times: deque[float] = deque()
        self._updated = 0.0
        spending = getattr(judge, "spending", None)
        self._spending: Spending | None = spending if isinstance(spending, Spending) else None
        self._bar = Progress(
            TextColumn("verdicts"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=self.interactive,
        )
        self._task = self._bar.add_task("", total=total, numbers="")
        on_notice = getattr(judge, "on_notice", None)
        if on_notice is not None:
            on_notice(self.notice)

    def __enter__(self) -> ScoreProgress:
        self._bar.start()
        return self

    def tell(self, verdict: Verdict, new: bool) -> None:
        """Count one verdict."""
        now = time.monotonic()
        self.told += 1
        if new:
            self.new += 1
            self._times.append(now)
        if verdict.score is None:
            self.failed += 1
        else:
            self._sum += verdict.score
        # A verdict from the cache takes some microseconds, writing the numbers more.
        if now - self._updated > 0.1:
            self._show(now)

    def notice(self, line: str) -> None:
        """Show one line above the bar."""
        self._bar.console.print(escape(line), highlight=False)

    def spent(self) -> dict[str, float | None]:
        """``money``: what the verdicts in the file cost; ``None`` where there are no prices."""
        return {"money": None if self._spending is None else self._spending.money}

    def _show(self, now: float) -> None:
        self._updated = now
        scored = self.told - self.failed
        parts = [f"mean {self._sum / scored:.2f}"] if scored else []
        while self._times and self._times[0] < now - _WINDOW:
            self._times.popleft()
        if len(self._times) > 1 and now > self._times[0]:
            parts.append(f"{(len(self._times) - 1) / (now - self._times[0]):.1f}/s")
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self._spending is not None and self._spending.money is not None:
            parts.append(f"{self._spending.money:.4f} spent")
        self._bar.update(self._task, completed=self.told, numbers=" · ".join(parts))

    def __exit__(self, *_: object) -> None:
        self._show(time.monotonic())
        self._bar.stop()
