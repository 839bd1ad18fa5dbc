"""A cheap judge first, and a dear one only where the cheap one does not settle it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from agents.episode import Episode
from ovd_envs.errors import OVDError
from teachers.members import (
    any_interactive,
    ask_member,
    load_member,
    shared_batch_size,
    shared_fingerprint,
    with_errors,
)
from teachers.protocol import JudgeOutageError
from teachers.verdict import Verdict
from teachers.whole_groups import scores_groups


class CascadeJudge:
    """Asks ``cheap`` about every episode, and ``dear`` only about the doubtful ones.

    Doubtful is a score at most ``margin`` away from ``theta``, where the judges could differ on
    whether the episode is accepted, and an episode on which the cheap judge failed. The verdict
    is that of the judge that was asked last, an error if that one failed; its reason begins with
    who decided, and both verdicts are its ``parts``.

    Args:
        cheap: a judge's name, a mapping of a name and options, or a judge.
        dear: another.
        theta: the score from which an episode will count as accepted.
        margin: in points of the score; 0 asks again only at exactly ``theta``.

    Raises ``OVDError`` for an option out of range, a judge that does not load, and a dear one that
    reads whole groups.
    """

    name = "cascade"

    def __init__(
        self, cheap: object = "", dear: object = "", *, theta: float = 7.0, margin: float = 1.0
    ) -> None:
        _check_number("theta", theta, 10)
        _check_number("margin", margin, 10)
        self.cheap = load_member("cheap", cheap)
        self.dear = load_member("dear", dear)
        self.theta = theta
        self.margin = margin
        self.members = [self.cheap, self.dear]
        self.batch_size = shared_batch_size(self.members)
        self.interactive = any_interactive(self.members)
        self.scores_groups = scores_groups(self.cheap)
        if scores_groups(self.dear):
            raise OVDError(
                "dear: expected a judge that reads each episode by itself, for it is asked about "
                "some of a group"
            )

    @property
    def fingerprint(self) -> str:
        """Everything that a verdict depends on; empty where a member has no fingerprint."""
        options = [float(self.theta), float(self.margin)]
        return shared_fingerprint("cascade/1", options, self.members)

    def judge(self, episodes: Sequence[Episode]) -> list[Verdict]:
        """One verdict for every episode.

        Raises ``JudgeStopError``, with the verdicts on episodes that are decided. An outage of the
        cheap judge is a failure like any other.
        """
        first, stopped = ask_member(self.cheap, episodes)
        if isinstance(stopped, JudgeOutageError):
            first, stopped = with_errors(self.cheap, episodes, first, stopped), None
        asked = [episode for episode in episodes if episode.id in first]
        doubtful = [episode for episode in asked if self._doubts(first[episode.id])]
        second, stopped_later = ask_member(self.dear, doubtful)
        undecided = {episode.id for episode in doubtful} - second.keys()
        verdicts = [
            self._verdict(first[episode.id], second.get(episode.id))
            for episode in asked
            if episode.id not in undecided
        ]
        if (stop := stopped or stopped_later) is not None:
            raise type(stop)(str(stop), verdicts)
        return verdicts

    def _doubts(self, part: Verdict) -> bool:
        return part.score is None or abs(part.score - self.theta) <= self.margin

    def _verdict(self, first: Verdict, second: Verdict | None) -> Verdict:
        decider = first if second is None else second
        parts = (first,) if second is None else (first, second)
        if second is None:
            who = f"{first.judge} decided"
        elif first.score is None:
            who = f"{second.judge} decided, for {first.judge} failed"
        else:
            who = f"{second.judge} decided, for {first.judge} gave {first.score:g}"
        return Verdict(
            episode=first.episode,
            judge=self.name,
            score=decider.score,
            reason="" if decider.failed else f"[{who}] {decider.reason}".rstrip(),
            error=decider.error,
            distribution=decider.distribution,
            seconds=sum(part.seconds for part in parts),
            prompt_tokens=sum(part.prompt_tokens for part in parts),
            completion_tokens=sum(part.completion_tokens for part in parts),
            parts=parts,
        )


def _check_number(option: str, value: Any, most: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= most or not math.isfinite(value):
        raise OVDError(f"{option}: expected a number in 0..{most:g}, got {value!r}")
