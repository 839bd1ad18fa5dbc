"""A judge of judges: their scores become one, and how far they differ is kept."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from agents.episode import Episode
from ovd_envs.errors import OVDError
from teachers.members import (
    any_interactive,
    any_scores_groups,
    ask_member,
    load_members,
    shared_batch_size,
    shared_fingerprint,
    with_errors,
)
from teachers.protocol import Judge, JudgeOutageError, JudgeStopError
from teachers.verdict import MAX_SCORE, Verdict

REDUCTIONS = ("mean", "median", "min")
ON_ERROR = ("fail", "rest")


class EnsembleJudge:
    """Asks several judges about every episode.

    The members' verdicts are the ``parts`` of the verdict, in the order of ``judges``; how far
    they lie apart is its ``disagreement``.

    Args:
        judges: names, mappings of a name and options, or judges.
        reduce: "mean", "median" or "min" of the members' scores.
        weights: of the members, for the mean; all equal by default.
        on_error: where a member fails, the verdict is an error ("fail"), or the scores of the
            rest decide ("rest") if there is at least one. A failure is never a score.

    Raises ``OVDError`` for an option out of range and a member that does not load.
    """

    name = "ensemble"

    def __init__(
        self,
        judges: Sequence[object] | str = (),
        *,
        reduce: str = "mean",
        weights: Sequence[float] | None = None,
        on_error: str = "fail",
    ) -> None:
        if reduce not in REDUCTIONS:
            raise OVDError(f"reduce: expected one of {', '.join(REDUCTIONS)}, got {reduce!r}")
        if on_error not in ON_ERROR:
            raise OVDError(f"on_error: expected one of {', '.join(ON_ERROR)}, got {on_error!r}")
        self.members: list[Judge] = load_members("judges", judges)
        self.reduce = reduce
        self.weights = _check_weights(weights, len(self.members), reduce)
        self.on_error = on_error
        self.batch_size = shared_batch_size(self.members)
        self.interactive = any_interactive(self.members)
        self.scores_groups = any_scores_groups(self.members)

    @property
    def fingerprint(self) -> str:
        """Everything that a verdict depends on; empty where a member has no fingerprint."""
        options = [self.reduce, self.weights, self.on_error]
        return shared_fingerprint("ensemble/1", options, self.members)

    def judge(self, episodes: Sequence[Episode]) -> list[Verdict]:
        """One verdict for every episode; each member is asked once.

        Raises ``JudgeStopError``, with the verdicts on episodes that all have answered. With
        ``on_error`` "rest" an outage of some members is a failure of theirs like any other.
        """
        answers: list[dict[str, Verdict]] = []
        stops: list[JudgeStopError] = []
        away: list[JudgeStopError] = []
        for member in self.members:
            found, stopped = ask_member(member, episodes)
            if self.on_error == "rest" and isinstance(stopped, JudgeOutageError):
                found = with_errors(member, episodes, found, stopped)
                away.append(stopped)
            elif stopped is not None:
                stops.append(stopped)
            answers.append(found)
        verdicts = [
            self._verdict(episode, [found[episode.id] for found in answers])
            for episode in episodes
            if all(episode.id in found for found in answers)
        ]
        if len(away) == len(self.members):  # nobody is left to decide
            stops = away
        if stops:
            raise type(stops[0])(str(stops[0]), verdicts)
        return verdicts

    def _verdict(self, episode: Episode, parts: Sequence[Verdict]) -> Verdict:
        scored = [
            (part.score, weight)
            for part, weight in zip(parts, self.weights, strict=True)
            if part.score is not None
        ]
        value: float | None = None
        error: str | None = None
        told = "; ".join(_told(part) for part in parts)
        if not scored:
            error = f"every judge failed: {told}"
        elif len(scored) < len(parts) and self.on_error == "fail":
            failed = "; ".join(_told(part) for part in parts if part.failed)
            error = f"{len(parts) - len(scored)} of {len(parts)} judges failed: {failed}"
        else:
            value = self._reduced(scored)
        return Verdict(
            episode=episode.id,
            judge=self.name,
            score=value,
            reason="" if error else f"{self.reduce} of {len(scored)}: {told}",
            error=error,
            seconds=sum(part.seconds for part in parts),
            prompt_tokens=sum(part.prompt_tokens for part in parts),
            completion_tokens=sum(part.completion_tokens for part in parts),
            parts=tuple(parts),
        )

    def _reduced(self, scored: Sequence[tuple[float, float]]) -> float:
        values = [value for value, _ in scored]
        if self.reduce == "median":
            return statistics.median(values)
        if self.reduce == "min":
            return min(values)
        total = math.fsum(weight for _, weight in scored)
        mean = math.fsum(value * weight for value, weight in scored) / total
        return min(max(mean, 0.0), float(MAX_SCORE))  # rounding can lift it a hair above 9


def _check_weights(weights: Any, members: int, reduce: str) -> tuple[float, ...]:
    if weights is None:
        return (1.0,) * members
    if reduce != "mean":
        raise OVDError(f"weights: expected none with reduce {reduce!r}, got {weights!r}")
    numbers = isinstance(weights, Sequence) and not isinstance(weights, str)
    if not numbers or not all(_is_weight(w) for w in weights):
        raise OVDError(f"weights: expected a list of numbers above 0, got {weights!r}")
    found = tuple(float(weight) for weight in weights)
    if len(found) != members:
        raise OVDError(f"weights: expected {members}, one for each judge, got {len(found)}")
    return found


def _is_weight(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and bool(0 < value < math.inf)


def _told(part: Verdict) -> str:
    if part.score is None:
        return f"{part.judge} failed ({part.error})"
    return f"{part.judge} {part.score:g}" + (f" ({part.reason})" if part.reason else "")
