"""``ovd score``."""

from __future__ import annotations

import json
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ovd_envs.errors import OVDError
from ovd_envs.jsonl import write_atomic
from ovd_envs.options import parse_options

if TYPE_CHECKING:
    from teachers.verdict import Verdict


def register_commands(app: typer.Typer) -> None:
    """Add ``ovd score``."""
    app.command(name="score")(score)


def score(
    episodes: Path = typer.Argument(metavar="EPISODES", help="JSONL file of episodes."),
    judge: str = typer.Option(
        ..., "--judge", "-j", metavar="NAME", help="A judge: steps, outcome, llm, ... (`ovd envs`)."
    ),
    model: str | None = typer.Option(
        None, "--model", "-m", metavar="MODEL", help="Model of the judge 'llm'."
    ),
    rubric: str | None = typer.Option(
        None, metavar="NAME|FILE", help="Rubric of the judge 'llm': general, math, or a text file."
    ),
    option: list[str] = typer.Option(
        [],
        "--option",
        metavar="KEY=VALUE",
        help="Another option of the judge, e.g. reduce=argmax or reply=digit; may be repeated.",
    ),
    out: Path | None = typer.Option(
        None,
        "--out",
        "-o",
        metavar="FILE",
        help="JSONL file of the verdicts; default: beside the episodes, NAME.JUDGE.verdicts.jsonl.",
    ),
    cache: Path | None = typer.Option(
        None, metavar="DIR", help="Folder of known verdicts, shared between files and runs."
    ),
    theta: float = typer.Option(
        7.0, metavar="T", min=0.0, max=10.0, help="Score from which an episode counts as accepted."
    ),
    reliability: bool = typer.Option(
        False, "--reliability", help="Measure the judge against the outcome of the episodes."
    ),
    repeats: int = typer.Option(
        1, metavar="N", min=1, help="With --reliability: ask N times, to see how much it varies."
    ),
    precision: float | None = typer.Option(
        None,
        metavar="P",
        min=0.0,
        max=1.0,
        help="With --reliability: suggest the smallest theta that reaches this precision.",
    ),
    page: Path | None = typer.Option(
        None, metavar="FILE", help="With --reliability: an HTML page with plots."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
) -> None:
    """Judge saved episodes: a score from 0 to 9 and a reason for each, as JSONL.

    Each verdict is saved as it comes: Ctrl-C loses none, and the same command goes on with what
    is missing and asks again where the judge failed.

    Example: `ovd score episodes.jsonl --judge steps`

    Example: `ovd score episodes.jsonl --judge steps --reliability --page trust.html`
    """
    from rich.console import Console

    from teachers.cache import VerdictCache
    from teachers.registry import make_judge
    from teachers.reliability_page import reliability_page
    from teachers.reliability_report import print_reliability
    from teachers.reliability_run import ask_again, measure
    from teachers.score_file import identify, score_file

    if not reliability:
        given = {
            "--repeats": repeats != 1,
            "--precision": precision is not None,
            "--page": page is not None,
        }
        if alone := [name for name, there in given.items() if there]:
            raise OVDError(f"{alone[0]}: expected --reliability beside it")
    options = parse_options(option, "--option")
    options.update({k: v for k, v in {"model": model, "rubric": rubric}.items() if v is not None})
    identities = identify(episodes)  # a broken row is told before a model is loaded
    chosen = make_judge(judge, **options)
    target = out or episodes.with_name(f"{episodes.stem}.{judge.replace('/', '-')}.verdicts.jsonl")
    began = time.perf_counter()
    # A person at the terminal is asked there: nothing else writes on it meanwhile.
    shown = not getattr(chosen, "interactive", False)
    with ScoreProgress(len(identities), shown=shown) as progress:
        try:
            verdicts = score_file(
                chosen,
                episodes,
                target,
                cache=VerdictCache(cache) if cache else None,
                progress=progress.tell,
                identities=identities,
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"stopped after {progress.told} of {len(identities)} episodes; the verdicts are "
                f"in {target}, the same command goes on"
            ) from None
    summary = summarize(verdicts, theta=theta, new=progress.new)
    summary = {
        "judge": chosen.name,
        "out": str(target),
        **summary,
        "seconds": time.perf_counter() - began,
    }
    measured = None
    if reliability:
        runs = [verdicts]
        for number in range(2, repeats + 1):
            with ScoreProgress(len(identities), shown=shown) as bar:
                runs.append(ask_again(chosen, episodes, target, number, identities, bar.tell))
        measured = measure(chosen, episodes, runs, theta=theta, precision=precision)
        summary["reliability"] = measured.to_dict()
        if page is not None:
            write_atomic(page, reliability_page(measured))
    if as_json:
        typer.echo(json.dumps(summary, indent=2))
    else:
        _print_summary(summary, target)
        if measured is not None:
            print_reliability(measured, Console())
    if summary["errors"]:
        first = next(verdict for verdict in verdicts if verdict.failed)
        typer.echo(
            f"the judge failed on {summary['errors']} episode(s), the first: {first.episode}: "
            f"{_one_line(first.error or '')} (the same command asks again)",
            err=True,
        )
        raise typer.Exit(1)


def summarize(verdicts: Sequence[Verdict], *, theta: float, new: int) -> dict[str, Any]:
    """The numbers of some verdicts, as plain JSON. Errors count in ``errors`` alone."""
    scores = [verdict.score for verdict in verdicts if verdict.score is not None]
    histogram = Counter(min(int(score), 9) for score in scores)
    return {
        "episodes": len(verdicts),
        "new": new,
        "scored": len(scores),
        "errors": len(verdicts) - len(scores),
        "mean_score": statistics.fmean(scores) if scores else None,
        "theta": theta,
        "acceptance": sum(s >= theta for s in scores) / len(scores) if scores else None,
        "scores": {str(digit): histogram[digit] for digit in range(10)},
        "prompt_tokens": sum(verdict.prompt_tokens for verdict in verdicts),
        "completion_tokens": sum(verdict.completion_tokens for verdict in verdicts),
    }


class ScoreProgress:
    """A progress bar on stderr: episodes done, their mean score, failures of the judge."""

    def __init__(self, total: int, *, shown: bool = True) -> None:
        self.total = total
        self._shown = shown
        self.told = self.new = self.failed = 0
        self._sum = 0.0

    def __enter__(self) -> ScoreProgress:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._bar = Progress(
            TextColumn("verdicts"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not self._shown,
        )
        self._task = self._bar.add_task("", total=self.total, numbers="")
        self._bar.start()
        return self

    def tell(self, verdict: Verdict, new: bool) -> None:
        """Count one verdict."""
        self.told += 1
        self.new += new
        if verdict.score is None:
            self.failed += 1
        else:
            self._sum += verdict.score
        scored = self.told - self.failed
        numbers = f"mean {self._sum / scored:.2f}" if scored else ""
        if self.failed:
            numbers += f" · {self.failed} failed"
        self._bar.update(self._task, advance=1, numbers=numbers)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def _print_summary(summary: Mapping[str, Any], out: Path) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column(style="bold")
    table.add_column()
    table.add_row("judge", Text(summary["judge"]))
    table.add_row("episodes", f"{summary['episodes']} ({summary['new']} judged now)")
    if summary["scored"]:
        table.add_row("mean score", f"{summary['mean_score']:.2f} of 9")
        share = f"{summary['acceptance']:.1%} (score {summary['theta']:g} or more)"
        table.add_row("accepted", share)
        most = max(summary["scores"].values())
        for digit, count in reversed(summary["scores"].items()):
            bar = "█" * round(30 * count / most) if most else ""
            table.add_row(f"  score {digit}", Text(f"{bar} {count}" if count else "-"))
    if summary["errors"]:
        table.add_row("judge failed", f"{summary['errors']}")
    table.add_row("saved in", Text(str(out)))
    Console().print(table)


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else f"{line[:197]}..."
