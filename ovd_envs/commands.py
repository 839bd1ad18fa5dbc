"""The commands of this package: ``ovd envs``, ``ovd check``, ``ovd grade``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import typer

from ovd_envs.errors import OVDError, TaskError
from ovd_envs.jsonl import read_jsonl_numbered
from ovd_envs.options import parse_options
from ovd_envs.registry import Entry, Registry

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def register_commands(app: typer.Typer) -> None:
    """Add the commands of this package to ``app``."""
    app.command("envs")(envs)
    app.command("check")(check)
    app.command("grade")(grade)


def envs(as_json: Json = False) -> None:
    """List what is registered: environments, judges, backends and so on.

    Environments of other packages appear here once they are installed; one that does not load is
    listed with the reason.

    Example: ovd envs --json
    """
    listed = {
        registry.group.rpartition(".")[2]: registry.entries() for registry in Registry.everywhere
    }
    if as_json:
        _print_json({group: [_plain(entry) for entry in found] for group, found in listed.items()})
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for group, found in listed.items():
        table = Table(title=group.replace("_", " "), title_justify="left", box=None)
        for column in ("name", "what it is", "from"):
            table.add_column(column, overflow="fold")
        for entry in found:
            what = f"[red]{_escape(entry.error)}[/red]" if entry.error else _escape(entry.summary)
            table.add_row(f"[bold]{_escape(entry.name)}[/bold]", what, _escape(entry.source))
        if found:
            console.print(table)
            console.print()


def check(
    env: Annotated[str, typer.Argument(help="Registered name, e.g. ovd/Math-v0.")],
    env_option: Annotated[
        list[str] | None,
        typer.Option(
            "--env-option",
            "-e",
            metavar="KEY=VALUE",
            help="An option of the environment, e.g. level=word-1; may be repeated.",
        ),
    ] = None,
    tasks: Annotated[int, typer.Option(min=1, help="Tasks of each split to play.")] = 20,
    as_json: Json = False,
) -> None:
    """Check an environment: Gymnasium's rules, seeds, spaces, gold answers, splits.

    Exit code 1 where a check fails.

    Example: ovd check ovd/Math-v0 --env-option level=word-2
    """
    from ovd_envs.checker import check_environment

    results = check_environment(env, parse_options(env_option or [], "--env-option"), tasks=tasks)
    passed = all(result.passed for result in results)
    if as_json:
        _print_json(
            {
                "env": env,
                "passed": passed,
                "checks": [
                    {"name": r.name, "passed": r.passed, "detail": r.detail} for r in results
                ],
            }
        )
    else:
        from rich.console import Console

        console = Console()
        for result in results:
            mark = "[green]passed[/green]" if result.passed else "[red]failed[/red]"
            console.print(f"{mark}  [bold]{result.name}[/bold]: {_escape(result.detail)}")
    if not passed:
        raise typer.Exit(1)


def grade(
    kind: Annotated[str, typer.Argument(help='What the answers are: "math" or "number".')],
    pairs: Annotated[list[Path], typer.Argument(help="JSONL files of gold, answer (, expected).")],
    deadline: Annotated[float, typer.Option(min=0.1, help="Seconds that one pair may take.")] = 5.0,
    as_json: Json = False,
) -> None:
    """Grade pairs of a gold answer and an answer; compare with "expected" where rows have it.

    "math" asks whether the two are mathematically the same, "number" wants a number written out.
    A row may hold "settings" with what its equality means: "precision" (digits after the point),
    "strict" (names of variables matter), "allow_set_relation_comp" (an inequality equals a set).

    Example: ovd grade math pairs.jsonl --json
    """
    report = grade_pairs(kind, pairs, deadline=deadline, progress=not as_json)
    if as_json:
        _print_json(report)
    else:
        _print_grades(report)


def grade_pairs(
    kind: str, files: Iterable[Path], *, deadline: float = 5.0, progress: bool = False
) -> dict[str, Any]:
    """What ``ovd grade --json`` prints: "n", "agree" (of the rows with "expected"), "timeouts"
    and the "rows" with their verdicts. Raises ``OVDError`` naming file and row for bad input.
    """
    from ovd_envs.grading.pool import shared_pool

    if kind not in ("math", "number"):
        raise OVDError(f"KIND: expected math or number, got {kind!r}")
    rows = [
        _pair(row, f"{path}, row {number}")
        for path in files
        for number, row in read_jsonl_numbered(path)
    ]
    executor = ThreadPoolExecutor(shared_pool().size)
    try:
        outcomes = executor.map(lambda row: _grade_pair(kind, row, deadline), rows)
        graded = list(_with_progress(outcomes, len(rows), show=progress))
    finally:
        executor.shutdown(cancel_futures=True)
    expected = [row for row in graded if "expected" in row]
    return {
        "n": len(graded),
        "agree": sum(row["agrees"] for row in expected) if expected else None,
        "timeouts": sum(row["verdict"] == "timeout" for row in graded),
        "rows": graded,
    }


def _pair(row: dict[str, Any], where: str) -> dict[str, Any]:
    for name in ("gold", "answer"):
        if not isinstance(row.get(name), (str, int, float)) or isinstance(row[name], bool):
            found = ", ".join(row)
            raise OVDError(f"{where}: expected a text in field {name!r}, found the fields {found}")
    if not isinstance(row.get("expected", True), bool):
        raise OVDError(f"{where}: 'expected': expected true or false, got {row['expected']!r}")
    if not isinstance(row.get("settings") or {}, dict):
        raise OVDError(f"{where}: 'settings': expected an object, got {row['settings']!r}")
    return row


def _grade_pair(kind: str, row: dict[str, Any], deadline: float) -> dict[str, Any]:
    from ovd_envs.grading.extract import extract_answer
    from ovd_envs.grading.math import Equality, grade_math, grade_number

    gold, answer = str(row["gold"]), str(row["answer"])
    settings = row.get("settings") or {}
    try:
        if kind == "number":
            grade = grade_number(extract_answer(gold) or gold, extract_answer(answer) or answer)
        else:
            equality = Equality(
                decimals=int(settings.get("precision", 6)),
                strict=bool(settings.get("strict", True)),
                relations_as_sets=bool(settings.get("allow_set_relation_comp", True)),
            )
            grade = grade_math(gold, answer, deadline=deadline, equality=equality)
        correct, verdict = grade.correct, grade.outcome
    except TaskError as error:
        correct, verdict = None, f"gold error: {error}"
    graded = {"gold": gold, "answer": answer, "verdict": verdict}
    if "expected" in row:
        graded |= {"expected": row["expected"], "agrees": correct == row["expected"]}
    return graded


def _with_progress(items: Iterable[Any], total: int, *, show: bool) -> Iterable[Any]:
    if not show or not sys.stderr.isatty():
        return items
    from rich.console import Console
    from rich.progress import track

    return track(items, "grading", total, console=Console(stderr=True), transient=True)


def _print_grades(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    counts: dict[str, int] = {}
    for row in report["rows"]:
        verdict = row["verdict"].partition(":")[0]
        counts[verdict] = counts.get(verdict, 0) + 1
    console.print(f"{report['n']} pairs: " + ", ".join(f"{n} {v}" for v, n in counts.items()))
    expected = [row for row in report["rows"] if "expected" in row]
    if not expected:
        return
    share = report["agree"] / len(expected)
    console.print(f"{report['agree']} of {len(expected)} as expected ({share:.1%})")
    differing = [row for row in expected if not row["agrees"]]
    if differing:
        table = Table("gold", "answer", "expected", "verdict", box=None)
        for row in differing:
            texts = (repr(row["gold"])[:60], repr(row["answer"])[-60:])
            told = "right" if row["expected"] else "wrong"
            table.add_row(*map(_escape, texts), told, _escape(row["verdict"]))
        console.print(table)


def _plain(entry: Entry) -> dict[str, str]:
    return {
        "name": entry.name,
        "summary": entry.summary,
        "source": entry.source,
        "error": entry.error,
    }


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=True, indent=2))
