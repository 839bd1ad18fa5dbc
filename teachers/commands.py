"""``ovd score``."""

from __future__ import annotations

import contextlib
import json
import signal
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from agents.command_options import JUDGE_BACKEND_OPTION
from ovd_envs.errors import OVDError
from ovd_envs.jsonl import write_atomic
from ovd_envs.options import parse_options

if TYPE_CHECKING:
    from teachers.score_display import ScoreProgress
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
    backend: str | None = JUDGE_BACKEND_OPTION,
    rubric: str | None = typer.Option(
        None,
        metavar="NAME|FILE",
        help="Rubric of the judge 'llm': general, math, web-qa, or a text file.",
    ),
    option: list[str] = typer.Option(
        [],
        "--option",
        metavar="KEY=VALUE",
        help="Another option of the judge, e.g. reduce=argmax, concurrency=64 or budget=2.5 "
        "(docs/judge.md); may be repeated.",
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

    Each verdict is saved as it comes: Ctrl-C waits for the replies under way and loses none (a
    second Ctrl-C leaves them), and the same command goes on with what is missing and asks again
    where the judge failed. A budget that is spent stops it in the same way (exit code 1, as with
    failures of the judge).

    Example: `ovd score episodes.jsonl --judge steps`

    Example: `ovd score episodes.jsonl --judge steps --reliability --page trust.html`
    """
    from rich.console import Console

    from teachers.cache import VerdictCache
    from teachers.protocol import JudgeStopError
    from teachers.registry import make_judge
    from teachers.reliability_page import reliability_page
    from teachers.reliability_report import print_reliability
    from teachers.reliability_run import ask_again, measure
    from teachers.score_display import ScoreProgress
    from teachers.score_file import identify, score_file
    from teachers.spending import BudgetError
    from teachers.verdict_log import read_verdicts

    if not reliability:
        given = {
            "--repeats": repeats != 1,
            "--precision": precision is not None,
            "--page": page is not None,
        }
        if alone := [name for name, there in given.items() if there]:
            raise OVDError(f"{alone[0]}: expected --reliability beside it")
    options = parse_options(option, "--option")
    flags = {"model": model, "backend": backend, "rubric": rubric}
    options.update({k: v for k, v in flags.items() if v is not None})
    identities = identify(episodes)  # a broken row is told before a model is loaded
    chosen = make_judge(judge, **options)
    target = out or episodes.with_name(f"{episodes.stem}.{judge.replace('/', '-')}.verdicts.jsonl")
    stopped: str | None = None
    began = time.perf_counter()
    with ScoreProgress(len(identities), chosen) as progress, _stopped_by_ctrl_c(progress) as stop:
        try:
            verdicts = score_file(
                chosen,
                episodes,
                target,
                cache=VerdictCache(cache) if cache else None,
                progress=progress.tell,
                identities=identities,
                stop=stop,
            )
        except BudgetError as spent:
            stopped, verdicts = str(spent), list(read_verdicts(target))
        except JudgeStopError as refused:
            raise JudgeStopError(
                f"{refused} ({progress.told} of {len(identities)} episodes have a verdict in "
                f"{target}; the same command goes on)"
            ) from refused
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"stopped after {progress.told} of {len(identities)} episodes; the verdicts are "
                f"in {target}, the same command goes on"
            ) from None
    summary = {
        "judge": chosen.name,
        "out": str(target),
        **summarize(verdicts, theta=theta, new=progress.new),
        "not_asked": len(identities) - len(verdicts),
        "stopped": stopped,
        **progress.spent(),
        "seconds": time.perf_counter() - began,
    }
    measured = None
    if reliability and stopped is None:
        runs = [verdicts]
        try:
            for number in range(2, repeats + 1):
                paid = chain.from_iterable(runs)
                with ScoreProgress(len(identities), chosen) as bar:
                    runs.append(
                        ask_again(chosen, episodes, target, number, identities, bar.tell, paid=paid)
                    )
            measured = measure(chosen, episodes, runs, theta=theta, precision=precision)
        except BudgetError as spent:
            summary["stopped"] = str(spent)
        else:
            summary["reliability"] = measured.to_dict()
            if page is not None:
                write_atomic(page, reliability_page(measured))
    if as_json:
        typer.echo(json.dumps(summary, indent=2))
    else:
        _print_summary(summary, target)
        if measured is not None:
            print_reliability(measured, Console())
            if page is not None:
                typer.echo(f"page: {page}")
    _exit_unless_complete(summary, verdicts)


@contextlib.contextmanager
def _stopped_by_ctrl_c(progress: ScoreProgress) -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets; the second interrupts, as ever.

    A ``KeyboardInterrupt`` can come between a reply and its place in the file; an event cannot.
    A judge at the terminal is interrupted itself.
    """
    stop = threading.Event()
    if progress.interactive or threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def asked_to_stop(*_: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        progress.notice("stopping: waiting for what is under way (Ctrl-C again: at once)")

    before = signal.signal(signal.SIGINT, asked_to_stop)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def _exit_unless_complete(summary: Mapping[str, Any], verdicts: Sequence[Verdict]) -> None:
    """Exit code 1, and why, where an episode has no score."""
    if summary["errors"]:
        first = next(verdict for verdict in verdicts if verdict.failed)
        typer.echo(
            f"the judge failed on {summary['errors']} episode(s), the first: {first.episode}: "
            f"{_one_line(first.error or '')} (the same command asks again)",
            err=True,
        )
    if summary["stopped"]:
        missing = "what --reliability asks again is not complete"
        if summary["not_asked"]:
            missing = f"{summary['not_asked']} episode(s) were not asked for"
        typer.echo(
            f"stopped: {summary['stopped']}; {missing} "
            "(the same command with a larger budget goes on)",
            err=True,
        )
    if summary["errors"] or summary["stopped"]:
        raise typer.Exit(1)


def summarize(verdicts: Sequence[Verdict], *, theta: float, new: int) -> dict[str, Any]:
    """The numbers of some verdicts, as plain JSON. Errors count in ``errors`` alone.

    ``digits`` is of the verdicts that have the ten digits' probabilities: how many, their mean
    entropy in bits and the mean probability outside the digits; ``None`` where there are none.
    """
    known = [one for one in verdicts if one.entropy is not None and one.score is not None]
    digits = (
        {
            "verdicts": len(known),
            "entropy": statistics.fmean(one.entropy or 0.0 for one in known),
            "outside": statistics.fmean(one.outside or 0.0 for one in known),
        }
        if known
        else None
    )
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
        "digits": digits,
        "prompt_tokens": sum(verdict.prompt_tokens for verdict in verdicts),
        "completion_tokens": sum(verdict.completion_tokens for verdict in verdicts),
    }


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
    if digits := summary["digits"]:
        told = f"entropy {digits['entropy']:.2f} bits, {digits['outside']:.1%} beside them"
        table.add_row("ten digits", f"of {digits['verdicts']}: {told}")
    if summary["errors"]:
        table.add_row("judge failed", f"{summary['errors']}")
    if summary["not_asked"]:
        table.add_row("not asked", f"{summary['not_asked']} ({summary['stopped']})")
    tokens = summary["prompt_tokens"], summary["completion_tokens"]
    if any(tokens):
        money = "" if summary["money"] is None else f", {summary['money']:.4f} by the prices given"
        table.add_row("tokens", f"{tokens[0]} read, {tokens[1]} written{money}")
    table.add_row("saved in", Text(str(out)))
    Console().print(table)


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else f"{line[:197]}..."
