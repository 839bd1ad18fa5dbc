"""Reliability on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from agents.display import printable
from teachers.acceptance import Confusion
from teachers.ranking import Estimate
from teachers.reliability import Reliability

#: Kinds of task that are listed; JSON and the page have all.
_KINDS = 12


def print_reliability(found: Reliability, console: Console) -> None:
    """The numbers, the confusion at each theta, and the kinds of task."""
    console.print(_numbers(found))
    if found.scored:
        console.print(_confusion(found))
    if len(found.kinds) > 1:
        console.print(_kinds(found))
    for text, count in found.error_kinds:
        console.print(printable(f"{count} × {text}", style="dim"))


def share(value: float | None) -> str:
    """A share in percent, or a dash."""
    return "-" if value is None else f"{value:.1%}"


def estimate(found: Estimate | None, form: str = ".3f") -> str:
    """A number with its interval, or a dash."""
    if found is None:
        return "-"
    return f"{found.value:{form}} [{found.low:{form}}, {found.high:{form}}]"


def facts(found: Reliability) -> list[tuple[str, str]]:
    """What there is to say in a line each: (name, value)."""
    right = share(found.right / found.scored) if found.scored else "-"
    lines = [
        ("episodes", f"{found.episodes}, {found.scored} scored, {right} of them right"),
        ("AUC", estimate(found.auc) if found.auc else "- (it takes right and wrong ones)"),
        ("Spearman", estimate(found.spearman) if found.spearman else "- (nothing varies)"),
    ]
    theta = "none" if found.suggested is None else str(found.suggested)
    lines.append(("suggested theta", f"{theta}: {found.suggestion}"))
    if found.distribution is not None:
        told = found.distribution
        lines += [
            ("calibration", f"error {told.calibration_error:.3f}, of {told.n} with ten digits"),
            ("beside the digits", f"{told.outside:.2%} of the probability, {told.most_outside:.2%} "
             f"at most; entropy {told.entropy:.2f} bits"),
        ]  # fmt: skip
    if found.repeats is not None:
        again = found.repeats
        lines.append((
            "repeats",
            f"{again.times} times: variance {again.variance:.3g} (deviation "
            f"{again.deviation:.3g}), largest difference {again.largest:g}, "
            f"{again.flips:.1%} change sides of theta {found.theta:g}",
        ))  # fmt: skip
    if found.order is not None:
        moved = estimate(found.order.later, "+.2f")
        lines.append(("order", f"mean change {found.order.change:.2f}, later place {moved}"))
    elif found.order_skipped:
        lines.append(("order", f"not asked: {found.order_skipped}"))
    lines.append(("judge failed", estimate(found.errors, ".1%")))
    if found.failed_right is not None:
        lines.append(("right among these", estimate(found.failed_right, ".1%")))
    return lines


def confusion_cells(row: Confusion) -> list[str]:
    """The cells of one theta: theta, four counts, precision, recall, false accepts, J."""
    counts = (row.accepted_right, row.accepted_wrong, row.rejected_right, row.rejected_wrong)
    return [
        str(row.theta),
        *map(str, counts),
        estimate(row.precision, ".2f"),
        share(row.recall),
        share(row.false_accepts),
        "-" if row.youden is None else f"{round(row.youden, 2) + 0.0:.2f}",  # no "-0.00"
    ]


#: Over ``confusion_cells``: "+" is accepted, "-" rejected.
CONFUSION_HEAD = (
    "theta",
    "+right",
    "+wrong",
    "-right",
    "-wrong",
    "precision",
    "recall",
    "false+",
    "J",
)


def _numbers(found: Reliability) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 1), title_justify="left")
    table.add_column(style="bold")
    table.add_column()
    for name, value in facts(found):
        table.add_row(name, Text(value))
    return table


def _confusion(found: Reliability) -> Table:
    table = Table(
        box=None, padding=(0, 1, 0, 0), title="accepted (+) and rejected (-)", title_style="dim"
    )
    for name in CONFUSION_HEAD:
        table.add_column(name, justify="right", no_wrap=True)
    for row in found.confusion:
        table.add_row(
            *confusion_cells(row), style="bold green" if row.theta == found.suggested else ""
        )
    return table


def _kinds(found: Reliability) -> Table:
    more = len(found.kinds) - _KINDS
    table = Table(
        box=None, padding=(0, 1, 0, 0), caption=f"and {more} more kinds" if more > 0 else None
    )
    for name in ("kind", "episodes", "failed", "right", "mean score", "AUC"):
        table.add_column(name, justify="left" if name == "kind" else "right")
    for kind in found.kinds[:_KINDS]:
        table.add_row(
            printable(kind.name),
            str(kind.episodes),
            str(kind.errors),
            str(kind.right),
            "-" if kind.mean_score is None else f"{kind.mean_score:.2f}",
            estimate(kind.auc, ".2f"),
        )
    return table
