"""Which episodes a threshold of acceptance lets pass, against their outcomes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ovd_envs.statistics import wilson
from teachers.ranking import Estimate
from teachers.verdict import MAX_SCORE

#: Thresholds of acceptance that are looked at: 0 accepts everything, 10 nothing.
THETAS = range(MAX_SCORE + 2)

#: Theta where nothing else is said; of thresholds that do equally well the nearest is suggested.
DEFAULT_THETA = 7


@dataclass(frozen=True, slots=True)
class Confusion:
    """Verdicts against outcomes where an episode is accepted from ``theta`` on."""

    theta: int
    accepted_right: int
    accepted_wrong: int
    rejected_right: int
    rejected_wrong: int

    @property
    def precision(self) -> Estimate | None:
        """Share of the accepted that is right; Wilson's interval."""
        return share(self.accepted_right, self.accepted_right + self.accepted_wrong)

    @property
    def recall(self) -> float | None:
        """Share of the right that is accepted."""
        right = self.accepted_right + self.rejected_right
        return self.accepted_right / right if right else None

    @property
    def false_accepts(self) -> float | None:
        """Share of the wrong that is accepted."""
        wrong = self.accepted_wrong + self.rejected_wrong
        return self.accepted_wrong / wrong if wrong else None

    @property
    def youden(self) -> float | None:
        """Youden's J: recall less false accepts; 0 for a judge that guesses, 1 at best."""
        if self.recall is None or self.false_accepts is None:
            return None
        return self.recall - self.false_accepts

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, the derived numbers among it."""
        precision = self.precision
        return {
            **asdict(self),
            "precision": None if precision is None else asdict(precision),
            "recall": self.recall,
            "false_accepts": self.false_accepts,
            "youden": self.youden,
        }


def confusion_at(theta: int, scores: Sequence[float], right: Sequence[bool]) -> Confusion:
    """The scores against whether each episode is right, accepted from ``theta`` on."""
    table = Counter(
        (score >= theta, is_right) for score, is_right in zip(scores, right, strict=True)
    )
    return Confusion(
        theta, table[True, True], table[True, False], table[False, True], table[False, False]
    )


def suggest(confusion: Sequence[Confusion], precision: float | None) -> tuple[int | None, str]:
    """(theta, why); theta is ``None`` where no threshold does what is asked."""
    if precision is not None:
        for row in confusion:
            found = row.precision
            if found is not None and found.value >= precision:
                return row.theta, (
                    f"the smallest theta that reaches precision {precision:g}: "
                    f"{row.accepted_right} of {row.accepted_right + row.accepted_wrong} accepted "
                    "are right"
                )
        return None, f"no theta reaches precision {precision:g}"
    known = [(row.youden, row.theta) for row in confusion if row.youden is not None]
    if not known:
        return None, "it takes right and wrong episodes with a score to tell"
    best = max(youden for youden, _ in known)
    if best <= 1e-9:
        return None, "no theta accepts right episodes more often than wrong ones"
    equals = [theta for youden, theta in known if youden >= best - 1e-9]
    theta = min(equals, key=lambda t: (abs(t - DEFAULT_THETA), t))
    beside = ", ".join(str(t) for t in equals if t != theta)
    return theta, f"the largest J of Youden, {best:.2f}" + (
        f" (as good: {beside}; the nearest to {DEFAULT_THETA} is taken)" if beside else ""
    )


def share(count: int, n: int) -> Estimate | None:
    """``count`` of ``n`` with Wilson's interval; ``None`` where n is 0."""
    return Estimate(count / n, *wilson(count, n)) if n else None
