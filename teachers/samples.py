"""What the samples of a judge model come to: one verdict."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from teachers.digits import MIN_MASS, mean_of, reduced
from teachers.judge_reply import Reply
from teachers.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Sample:
    """What a judge model answered about one episode: a reply, or why there is none."""

    reply: Reply | None
    error: str = ""
    distribution: tuple[float, ...] | None = None

    def score(self, reduce: str) -> float:
        """Its score: of the ten digits where it has them, else what was written."""
        assert self.reply is not None
        return reduced(self.reply.score, self.distribution, reduce)


@dataclass(frozen=True, slots=True)
class Cost:
    """What the answers took."""

    seconds: float
    prompt_tokens: int
    completion_tokens: int


def verdict_of(
    episode: str, judge: str, samples: Sequence[Sample], reduce: str, cost: Cost
) -> Verdict:
    """The verdict on the episode with the id ``episode`` from one sample or more.

    Samples without a usable reply count for nothing; where all are so, the verdict is an error. If
    each of the others has the probabilities of the ten digits, their mean is the distribution, and
    the score is read from it; otherwise the score is the mean of theirs. The reason is that of the
    sample nearest to the score, after all their scores; a turn has the mean of those that could
    tell.
    """
    took: dict[str, Any] = {"episode": episode, "judge": judge, **asdict(cost)}
    usable = [sample for sample in samples if sample.reply is not None]
    if not usable:
        told = samples[-1].error
        if len(samples) > 1:
            told = f"none of {len(samples)} samples can be used; the last: {told}"
        return Verdict(score=None, error=told, **took)
    scores = [sample.score(reduce) for sample in usable]
    known = [sample.distribution for sample in usable if sample.distribution is not None]
    distribution = mean_of(known) if len(known) == len(usable) else None
    score = statistics.fmean(scores)
    if distribution is not None and all(math.fsum(one) >= MIN_MASS for one in known):
        score = reduced(0, distribution, reduce)
    near = min(range(len(usable)), key=lambda n: abs(scores[n] - score))
    replies = [sample.reply for sample in usable if sample.reply is not None]
    reason = replies[near].reason
    if len(samples) > 1:
        of = f"{len(usable)} of {len(samples)}" if len(usable) < len(samples) else len(samples)
        reason = f"[{of} samples: {', '.join(f'{one:.3g}' for one in scores)}] {reason}"
    return Verdict(
        score=score,
        reason=reason,
        distribution=distribution,
        turns=_turns([reply.turns for reply in replies]),
        **took,
    )


def _turns(
    scored: Sequence[tuple[int | None, ...] | None],
) -> tuple[float | None, ...] | None:
    """The mean score of each turn over those that could tell."""
    told = [turns for turns in scored if turns is not None]
    if not told:
        return None
    columns = [[one for one in column if one is not None] for column in zip(*told, strict=True)]
    return tuple(statistics.fmean(column) if column else None for column in columns)
