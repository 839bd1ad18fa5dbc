"""What ``ovd eval`` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table


def evaluation_table(result: Mapping[str, Any]) -> Table:
    """The numbers of an evaluation (``evaluate``), of a comparison and of a teacher's feedback."""
    low, high = result["interval"]
    table = Table(title=f"{result['student']} on {result['env']}", show_header=False)
    table.add_row("accuracy", f"{result['accuracy']:.1%}  [{low:.1%}, {high:.1%}]")
    low, high = result["reward_interval"]
    table.add_row("reward", f"{result['reward']:.3f}  [{low:.3f}, {high:.3f}]")
    table.add_row("tasks", str(result["n"]))
    for k, value in result.get("pass_at_k", {}).items():
        table.add_row(f"pass@{k}", f"{value:.1%}")
    if result["errors"]:
        table.add_row("errors", f"{result['errors']} episodes, counted as not answered")
    if told := result.get("teacher_feedback"):
        for name, value in _feedback_rows(told):
            table.add_row(name, value)
    if other := result.get("compare"):
        table.add_row(
            f"against {other['with']}",
            f"{other['difference']:+.1%}  [{other['low']:+.1%}, {other['high']:+.1%}]  "
            f"p {other['p']:.2g} ({other['gained']} gained, {other['lost']} lost, n {other['n']})",
        )
    return table


def _feedback_rows(told: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is printed of the student with a teacher beside it."""
    low, high = told["interval"]
    alone = told["alone"]
    seen = ", which sees the gold answers" if told["gold_aware"] else ""
    how = "with its reason" if told["with_reason"] else "without a word"
    errors = f", {told['judge_errors']} failed" if told["judge_errors"] else ""
    return [
        ("with teacher feedback", f"{told['accuracy']:.1%}  [{low:.1%}, {high:.1%}]"),
        (
            "  against alone",
            f"{alone['difference']:+.1%}  [{alone['low']:+.1%}, {alone['high']:+.1%}]  "
            f"({alone['gained']} gained, {alone['lost']} lost)",
        ),
        ("  judge", f"{told['judge']}{seen}; below {told['theta_test']:g} again, {how}"),
        ("  judge calls", f"{told['judge_calls']}{errors}"),
        ("  tried again", f"{told['retried']} tasks, {told['retries']} episodes"),
    ]
