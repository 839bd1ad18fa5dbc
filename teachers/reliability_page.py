"""Reliability as one HTML page: no network, no script; readable in light and in dark."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape

from teachers.calibration import Bin
from teachers.reliability import Reliability
from teachers.reliability_report import CONFUSION_HEAD, confusion_cells, estimate, facts
from teachers.verdict import MAX_SCORE

_WIDTH, _HEIGHT = 420, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 22, 28, 42

_STYLE = """
:root { color-scheme: light dark; --ink: #1b2430; --soft: #5b6675; --line: #d5dae1;
  --paper: #ffffff; --panel: #f6f7f9; --good: #2563c9; --bad: #c2570c; --mark: #6d28d9; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --soft: #9aa5b4; --line: #3a4452;
  --paper: #14181f; --panel: #1c222b; --good: #6ea8ff; --bad: #ff9a52; --mark: #c4a3ff; } }
body { margin: 0 auto; max-width: 980px; padding: 24px 16px 48px; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 22px; margin: 0 0 4px; } h2 { font-size: 16px; margin: 0 0 4px; }
p { margin: 0 0 8px; color: var(--soft); }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(320px, 1fr)); gap: 16px;
  margin: 16px 0; }
section { background: var(--panel); border: 1px solid var(--line); border-radius: 8px;
  padding: 14px 16px; margin-bottom: 16px; overflow-x: auto; }
.charts section { margin: 0; }
svg { width: 100%; height: auto; display: block; font: 12px system-ui, sans-serif; }
text { fill: var(--soft); } .axis { stroke: var(--line); } .grid { stroke: var(--line);
  stroke-dasharray: 2 4; } .diagonal { stroke: var(--soft); stroke-dasharray: 4 4; }
line.chosen { stroke: var(--mark); stroke-dasharray: 2 6; }
.good { fill: var(--good); stroke: var(--good); } .bad { fill: var(--bad); stroke: var(--bad); }
.mark { fill: var(--mark); stroke: var(--mark); } polyline { fill: none !important;
  stroke-width: 2; } .bar { stroke: none; } .label { stroke: none; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 3px 8px; border-bottom: 1px solid var(--line);
  white-space: nowrap; } th:first-child, td:first-child { text-align: left; }
th { color: var(--soft); font-weight: 600; } tr.chosen td { color: var(--mark); font-weight: 700; }
table.facts td { white-space: normal; text-align: left; } .facts td:first-child
  { font-weight: 600; white-space: nowrap; vertical-align: top; }
"""

#: A place in a chart: data to pixels.
_Scale = Callable[[float], float]

#: The ticks of an axis of shares.
_SHARES = (0, 0.25, 0.5, 0.75, 1)


def reliability_page(found: Reliability) -> str:
    """The page as text."""
    charts = [
        _section("ROC", _roc_note(found), _roc(found)),
        _section(
            "Scores by outcome",
            'Episodes with each score: <b style="color:var(--good)">right</b> and '
            '<b style="color:var(--bad)">not right</b>.',
            _histogram(found),
        ),
        _section(
            "Accepting from theta on",
            '<b style="color:var(--good)">Right ones accepted</b>, '
            '<b style="color:var(--bad)">wrong ones accepted</b>, and '
            '<b style="color:var(--mark)">precision</b> with its interval; dotted: suggested.',
            _by_theta(found),
        ),
        _section("Calibration", _calibration_note(found), _calibration(found)),
    ]
    title = escape(f"How far to trust the judge {found.judge}", quote=True)
    rows = [[escape(name), escape(value)] for name, value in facts(found)]
    parts = [
        f"<h1>{title}</h1>",
        "<p>Its scores (0 to 9) against the outcome of the same episodes; right is a reward of 1. "
        "Brackets are 95 % intervals.</p>",
        f"<section>{_table((), rows, css='facts')}</section>",
        f'<div class="charts">{"".join(charts)}</div>',
        _section("Accepted (+) and rejected (-) at each theta", "", _confusion_table(found)),
    ]
    if found.kinds:
        parts.append(_section("By kind of task", "", _kind_table(found)))
    if found.error_kinds:
        rows = [[escape(text), str(count)] for text, count in found.error_kinds]
        parts.append(_section("Where the judge failed", "", _table(("error", "times"), rows)))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _section(title: str, note: str, content: str) -> str:
    beside = f"<p>{note}</p>" if note else ""
    return f"<section><h2>{title}</h2>{beside}{content}</section>"


def _table(
    head: Sequence[str], rows: Iterable[Sequence[str]], css: str = "", chosen: int = -1
) -> str:
    """Cells are HTML. ``chosen`` is the number of the row that stands out."""
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    top = f"<thead><tr>{cells}</tr></thead>" if head else ""
    lines = []
    for number, row in enumerate(rows):
        mark = ' class="chosen"' if number == chosen else ""
        lines.append(f"<tr{mark}>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>")
    return f'<table class="{css}">{top}<tbody>{"".join(lines)}</tbody></table>'


def _confusion_table(found: Reliability) -> str:
    rows = [[escape(cell) for cell in confusion_cells(row)] for row in found.confusion]
    return _table(CONFUSION_HEAD, rows, chosen=-1 if found.suggested is None else found.suggested)


def _kind_table(found: Reliability) -> str:
    rows = [
        [
            escape(kind.name),
            str(kind.episodes),
            str(kind.errors),
            str(kind.right),
            "-" if kind.mean_score is None else f"{kind.mean_score:.2f}",
            escape(estimate(kind.auc, ".2f")),
        ]
        for kind in found.kinds
    ]
    return _table(("kind", "episodes", "failed", "right", "mean score", "AUC"), rows)


def _roc_note(found: Reliability) -> str:
    if not found.roc:
        return "It takes right and wrong episodes."
    return (
        f"Area {escape(estimate(found.auc))}; each point is a theta. On the dashed line a judge "
        "guesses."
    )


def _roc(found: Reliability) -> str:
    x, y = _across(0, 1), _up(1)
    parts = _frame("wrong ones accepted", "right ones accepted", x, y)
    parts.append(_line(x(0), y(0), x(1), y(1), "diagonal"))
    if found.roc:
        parts.append(_polyline([(x(a), y(b)) for a, b in found.roc], "good"))
    places: dict[tuple[float, float], list[int]] = {}
    for row in found.confusion:
        if row.false_accepts is not None and row.recall is not None:
            places.setdefault((row.false_accepts, row.recall), []).append(row.theta)
    labelled: list[tuple[float, float]] = []
    # The chosen one first: where labels would touch, its own is kept.
    for (a, b), thetas in sorted(places.items(), key=lambda p: found.suggested not in p[1]):
        chosen = found.suggested in thetas
        shown = f"{thetas[0]}-{thetas[-1]}" if len(thetas) > 1 else f"{thetas[0]}"
        told = f"theta {shown}: {b:.1%} of the right, {a:.1%} of the wrong accepted"
        parts.append(_dot(x(a), y(b), "mark" if chosen else "good", told, 6 if chosen else 4))
        # A label stays within the frame, and off the one beside it.
        if any(abs(a - c) < 0.1 and abs(b - d) < 0.06 for c, d in labelled):
            continue
        labelled.append((a, b))
        left, top = a > 0.8, b > 0.15
        parts.append(
            f'<text x="{x(a) + (-9 if left else 9):.1f}" y="{y(b) + (15 if top else -8):.1f}" '
            f'text-anchor="{"end" if left else "start"}">{shown}</text>'
        )
    return _svg(parts, "ROC curve")


def _histogram(found: Reliability) -> str:
    counts = {int(one.low): one for one in found.by_score}
    # From the confusion: what theta d accepts and theta d + 1 does not has the score d.
    rows = found.confusion
    heights = [
        (
            rows[d].accepted_right - rows[d + 1].accepted_right,
            rows[d].accepted_wrong - rows[d + 1].accepted_wrong,
        )
        for d in range(MAX_SCORE + 1)
    ]
    most = max((max(pair) for pair in heights), default=0) or 1
    x, y = _across(-0.5, MAX_SCORE + 0.5), _up(most)
    ticks = sorted({0, *(round(most * part) for part in (0.25, 0.5, 0.75, 1))})
    parts = _frame("score", "episodes", x, y, ticks=ticks, bottom=range(MAX_SCORE + 1))
    for digit, pair in enumerate(heights):
        for side, (css, name, count) in enumerate(
            zip(("good", "bad"), ("right", "not right"), pair, strict=True)
        ):
            if count:
                start = x(digit - 0.4 + 0.4 * side)
                width = x(digit + 0.4) - x(digit)
                told = f"score {digit}: {count} {name}"
                if digit in counts:
                    told += f" of {counts[digit].n}"
                parts.append(
                    f'<rect class="{css} bar" x="{start:.1f}" y="{y(count):.1f}" '
                    f'width="{width - 1:.1f}" height="{y(0) - y(count):.1f}">'
                    f"<title>{told}</title></rect>"
                )
    return _svg(parts, "Histogram of scores by outcome")


def _by_theta(found: Reliability) -> str:
    x, y = _across(0, MAX_SCORE + 1), _up(1)
    thetas = range(MAX_SCORE + 2)
    parts = _frame("theta", "share", x, y, bottom=thetas)
    if found.suggested is not None:
        parts.append(_line(x(found.suggested), y(0), x(found.suggested), y(1), "chosen"))
    for css, name, values in (
        ("good", "right ones accepted", [row.recall for row in found.confusion]),
        ("bad", "wrong ones accepted", [row.false_accepts for row in found.confusion]),
    ):
        points = [(t, v) for t, v in zip(thetas, values, strict=True) if v is not None]
        parts.append(_polyline([(x(t), y(v)) for t, v in points], css))
        parts += [_dot(x(t), y(v), css, f"theta {t}: {name} {v:.1%}", 3) for t, v in points]
    for row in found.confusion:
        if (shown := row.precision) is not None:
            told = f"theta {row.theta}: precision {estimate(shown, '.2f')}"
            parts.append(_line(x(row.theta), y(shown.low), x(row.theta), y(shown.high), "mark"))
            parts.append(_dot(x(row.theta), y(shown.value), "mark", told, 3))
    return _svg(parts, "Acceptance and precision by theta")


def _calibration_note(found: Reliability) -> str:
    if found.distribution is not None:
        return (
            "Mean reward by expected score of the ten-digit distribution, in tenths of the "
            "episodes; on the dashed line the score / 9 is the reward."
        )
    return (
        "Mean reward by score (the judge gives no ten-digit distribution); on the dashed line "
        "the score / 9 is the reward."
    )


def _calibration(found: Reliability) -> str:
    bins: Sequence[Bin] = found.by_score
    if found.distribution is not None:
        bins = found.distribution.deciles
    x, y = _across(0, MAX_SCORE), _up(1)
    digits = range(MAX_SCORE + 1)
    parts = _frame("score", "mean reward", x, y, bottom=digits)
    parts.append(_line(x(0), y(0), x(MAX_SCORE), y(1), "diagonal"))
    for one in bins:
        low, high = max(one.outcome.low, 0), min(one.outcome.high, 1)
        told = f"{one.n} episodes, mean score {one.score:.2f}: reward {estimate(one.outcome)}"
        parts.append(_line(x(one.score), y(low), x(one.score), y(high), "good"))
        parts.append(_dot(x(one.score), y(min(max(one.outcome.value, 0), 1)), "good", told, 4))
    return _svg(parts, "Calibration")


def _across(low: float, high: float) -> _Scale:
    return lambda v: _LEFT + (v - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)


def _up(high: float) -> _Scale:
    return lambda v: _HEIGHT - _BOTTOM - v / high * (_HEIGHT - _TOP - _BOTTOM)


def _frame(
    across: str,
    up: str,
    x: _Scale,
    y: _Scale,
    *,
    ticks: Iterable[float] = _SHARES,
    bottom: Iterable[float] = _SHARES,
) -> list[str]:
    """Axes with names, and ticks on the upright axis and the bottom one: shares, or numbers."""
    left, right, base = _LEFT, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = [_line(left, base, right, base, "axis"), _line(left, _TOP, left, base, "axis")]
    for tick in ticks:
        shown = f"{tick:.0%}" if ticks is _SHARES else f"{tick:.0f}"
        parts.append(_line(left, y(tick), right, y(tick), "grid"))
        parts.append(f'<text x="{left - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{shown}</text>')
    for tick in bottom:
        shown = f"{tick:.0%}" if bottom is _SHARES else f"{tick:.0f}"
        parts.append(f'<text x="{x(tick):.1f}" y="{base + 16}" text-anchor="middle">{shown}</text>')
    middle = (left + right) / 2
    parts.append(f'<text x="{middle:.1f}" y="{_HEIGHT - 6}" text-anchor="middle">{across}</text>')
    return [*parts, f'<text x="4" y="14">{up}</text>']


def _line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    return f'<line class="{css}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _polyline(points: Sequence[tuple[float, float]], css: str) -> str:
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline class="{css}" points="{joined}"/>'


def _dot(x: float, y: float, css: str, told: str, radius: int) -> str:
    return (
        f'<circle class="{css}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}">'
        f"<title>{escape(told)}</title></circle>"
    )


def _svg(parts: Iterable[str], label: str) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg>"
    )
