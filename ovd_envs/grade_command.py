"""``ovd grade``: the graders by themselves, on files of pairs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import typer

from ovd_envs.errors import OVDError, TaskError
from ovd_envs.jsonl import read_jsonl_numbered

KINDS = ("math", "number", "qa")

#: A row's settings, and what they are in ``Equality``.
_SETTINGS = {
    "precision": "decimals",
    "strict": "strict",
    "allow_set_relation_comp": "relations_as_sets",
}

#: The measures of kind "qa"; the report has the mean of each.
_MEASURES = ("em", "f1", "substring")


def grade(
    kind: Annotated[str, typer.Argument(help='What the answers are: "math", "number" or "qa".')],
    pairs: Annotated[list[Path], typer.Argument(help="JSONL files of gold, answer (, expected).")],
    deadline: Annotated[
        float, typer.Option(min=0.1, help="Seconds that one pair of math may take.")
    ] = 5.0,
    normalization: Annotated[
        str | None,
        typer.Option(
            help='How qa compares: "squad" (the default), or "mended" (accents, dashes and more).'
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Grade pairs of a gold answer and an answer; compare with "expected" where rows have it.

    "math" asks whether the two are mathematically the same, "number" wants a number written out,
    "qa" gives exact match, F1 and substring match of words (gold may be a list of texts).
    A row of math may hold "settings" with what its equality means: "precision" (digits after the
    point), "strict" (names of variables matter), "allow_set_relation_comp" (an inequality equals a
    set).

    Example: ovd grade qa pairs.jsonl --json
    """
    report = grade_pairs(
        kind, pairs, deadline=deadline, normalization=normalization, progress=not as_json
    )
    if as_json:
        typer.echo(json.dumps(report, ensure_ascii=True, indent=2))
    else:
        _print_grades(report)


def grade_pairs(
    kind: str,
    files: Iterable[Path],
    *,
    deadline: float = 5.0,
    normalization: str | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """What ``ovd grade --json`` prints: "n", "agree" (of the rows with "expected"), "timeouts"
    and the "rows" with their verdicts; for "qa" also the means "em", "f1" and "substring" (``None``
    without rows). Raises ``OVDError`` naming file and row for bad input.
    """
    if kind not in KINDS:
        raise OVDError(f"KIND: expected math, number or qa, got {kind!r}")
    if normalization is not None and kind != "qa":
        raise OVDError(f"--normalization: only for KIND qa, got KIND {kind}")
    rows = [
        _pair(row, f"{path}, row {number}", several=kind == "qa")
        for path in files
        for number, row in read_jsonl_numbered(path)
    ]
    if kind == "qa":
        graded = list(_with_progress(_grade_answers(rows, normalization), len(rows), progress))
    else:
        graded = _grade_in_pool(lambda row: _grade_pair(kind, row, deadline), rows, progress)
    expected = [row for row in graded if "expected" in row]
    report: dict[str, Any] = {
        "n": len(graded),
        "agree": sum(row["agrees"] for row in expected) if expected else None,
        "timeouts": sum(row["verdict"] == "timeout" for row in graded),
    }
    if kind == "qa":
        for name in _MEASURES:
            report[name] = sum(row[name] for row in graded) / len(graded) if graded else None
    return report | {"rows": graded}


def _pair(row: dict[str, Any], where: str, *, several: bool) -> dict[str, Any]:
    """``row``, checked; ``several``: gold may be a list."""
    for name in ("gold", "answer"):
        if name == "gold" and several and isinstance(row.get(name), list) and row[name]:
            values = row[name]
        else:
            values = [row.get(name)]
        if not all(isinstance(v, (str, int, float)) and not isinstance(v, bool) for v in values):
            found = ", ".join(row)
            raise OVDError(f"{where}: expected a text in field {name!r}, found the fields {found}")
    if several and not any(str(v).strip() for v in _listed(row["gold"])):
        raise OVDError(f"{where}: expected a text in field 'gold', got {row['gold']!r:.80}")
    if not isinstance(row.get("expected", True), bool):
        raise OVDError(f"{where}: 'expected': expected true or false, got {row['expected']!r}")
    if not isinstance(row.get("settings") or {}, dict):
        raise OVDError(f"{where}: 'settings': expected an object, got {row['settings']!r}")
    for name, value in (row.get("settings") or {}).items():
        kind = int if name == "precision" else bool
        if name in _SETTINGS and type(value) is not kind:
            expected = "a whole number" if kind is int else "true or false"
            raise OVDError(f"{where}: 'settings': {name}: expected {expected}, got {value!r:.80}")
    return row


def _listed(gold: Any) -> list[Any]:
    return gold if isinstance(gold, list) else [gold]


def _grade_answers(
    rows: Iterable[dict[str, Any]], normalization: str | None
) -> Iterable[dict[str, Any]]:
    """The rows of kind "qa", graded."""
    from ovd_envs.grading.qa import NORMALIZATIONS, grade_qa

    if normalization not in (None, *NORMALIZATIONS):
        known = " or ".join(NORMALIZATIONS)
        raise OVDError(f"--normalization: expected {known}, got {normalization!r}")
    for row in rows:
        gold = [str(v) for v in _listed(row["gold"])]
        answer = str(row["answer"])
        found = grade_qa(gold, answer, mended=normalization == "mended")
        yield _graded(
            {
                "gold": gold if isinstance(row["gold"], list) else gold[0],
                "answer": answer,
                "verdict": "right" if found.em else "wrong",
                **{name: getattr(found, name) for name in _MEASURES},
            },
            row,
            bool(found.em),
        )


def _grade_in_pool(
    work: Callable[[dict[str, Any]], dict[str, Any]], rows: list[dict[str, Any]], progress: bool
) -> list[dict[str, Any]]:
    from ovd_envs.grading.pool import shared_pool

    executor = ThreadPoolExecutor(shared_pool().size)
    try:
        return list(_with_progress(executor.map(work, rows), len(rows), progress))
    finally:
        executor.shutdown(cancel_futures=True)


def _grade_pair(kind: str, row: dict[str, Any], deadline: float) -> dict[str, Any]:
    """A row of kind "math" or "number", graded."""
    from ovd_envs.grading.extract import extract_answer
    from ovd_envs.grading.math import Equality, grade_math, grade_number

    gold, answer = str(row["gold"]), str(row["answer"])
    try:
        if kind == "number":
            grade = grade_number(extract_answer(gold) or gold, extract_answer(answer) or answer)
        else:
            settings = row.get("settings") or {}
            known = {
                _SETTINGS[name]: value for name, value in settings.items() if name in _SETTINGS
            }
            equality = Equality(**known)
            grade = grade_math(gold, answer, deadline=deadline, equality=equality)
        correct, verdict = grade.correct, grade.outcome
    except TaskError as error:
        correct, verdict = None, f"gold error: {error}"
    return _graded({"gold": gold, "answer": answer, "verdict": verdict}, row, correct)


def _graded(graded: dict[str, Any], row: dict[str, Any], correct: bool | None) -> dict[str, Any]:
    if "expected" in row:
        graded |= {"expected": row["expected"], "agrees": correct == row["expected"]}
    return graded


def _with_progress(items: Iterable[Any], total: int, show: bool) -> Iterable[Any]:
    if not show or not sys.stderr.isatty():
        return items
    from rich.console import Console
    from rich.progress import track

    return track(items, "grading", total, console=Console(stderr=True), transient=True)


def _print_grades(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    counts: dict[str, int] = {}
    for row in report["rows"]:
        verdict = row["verdict"].partition(":")[0]
        counts[verdict] = counts.get(verdict, 0) + 1
    console.print(f"{report['n']} pairs: " + ", ".join(f"{n} {v}" for v, n in counts.items()))
    if report.get("f1") is not None:
        table = Table("exact match", "F1", "substring", box=None)
        table.add_row(*(f"{report[name]:.1%}" for name in _MEASURES))
        console.print(table)
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
            table.add_row(*map(escape, texts), told, escape(row["verdict"]))
        console.print(table)
