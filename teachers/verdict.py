"""A verdict: what a judge says of one episode, a score with a reason or an error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ovd_envs.errors import OVDError

#: Scores run from 0 to this, one digit each (the paper's vocabulary of ten).
MAX_SCORE = 9


class VerdictError(OVDError):
    """A verdict that says too much, too little or nonsense; or an error read as a score."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What ``judge`` says of the episode with id ``episode``.

    Exactly one of ``score`` (0 to 9) and ``error`` (one line, why there is no score) is set.
    ``distribution`` holds the probabilities of the ten digits where the judge has them; they
    sum to at most 1, what is missing went to other tokens. ``turns`` holds a score (0 to 9) for
    each turn of the episode, in order, where the judge scores turns; ``None`` for a turn of which
    it cannot tell. ``parts`` are the verdicts that this one was made of, where a judge asks others
    (an ensemble, a cascade). Raises ``VerdictError`` where a field breaks these rules.
    """

    episode: str
    judge: str
    score: float | None
    reason: str = ""
    error: str | None = None
    distribution: tuple[float, ...] | None = None
    seconds: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    turns: tuple[float | None, ...] | None = None
    parts: tuple[Verdict, ...] = ()

    def __post_init__(self) -> None:
        if (self.score is None) == (self.error is None):
            raise VerdictError(
                f"verdict on {self.episode!r}: expected a score or an error, "
                f"got score {self.score!r} and error {self.error!r}"
            )
        if self.error is not None and not self.error.strip():
            raise VerdictError(f"verdict on {self.episode!r}: the error is empty")
        if self.score is not None:
            _check_score(self.episode, "score", self.score)
        if self.turns is not None:
            if self.error is not None:
                raise VerdictError(f"verdict on {self.episode!r}: an error has no scores of turns")
            for number, score in enumerate(self.turns, start=1):
                if score is not None:
                    _check_score(self.episode, f"turn {number}", score)
        if self.distribution is not None:
            _check_distribution(self.episode, self.distribution)
        for part in self.parts:
            if part.episode != self.episode:
                raise VerdictError(
                    f"verdict on {self.episode!r}: a part of it is on {part.episode!r}"
                )

    @property
    def failed(self) -> bool:
        """Whether the judge failed: there is an error and no score."""
        return self.error is not None

    @property
    def outside(self) -> float | None:
        """The probability that went to other tokens than the ten digits; ``None`` if unknown."""
        if self.distribution is None:
            return None
        return max(1.0 - math.fsum(self.distribution), 0.0)

    @property
    def entropy(self) -> float | None:
        """How undecided the judge is: bits of its distribution over the ten digits alone.

        0 where one digit has it all, log2(10) = 3.32 where all are alike; ``None`` without a
        distribution, and where no probability at all is on the digits.
        """
        mass = math.fsum(self.distribution or ())
        if self.distribution is None or mass <= 0:
            return None
        inside = [p / mass for p in self.distribution if p > 0]
        return max(-math.fsum(p * math.log2(p) for p in inside), 0.0)

    @property
    def disagreement(self) -> float | None:
        """The largest score among the parts less the smallest; ``None`` with fewer than two."""
        scores = [part.score for part in self.parts if part.score is not None]
        return max(scores) - min(scores) if len(scores) > 1 else None

    def accepted(self, theta: float) -> bool:
        """Whether the score reaches ``theta``.

        Raises ``VerdictError`` for an error verdict: a judge that failed said neither yes nor no.
        """
        if self.score is None:
            raise VerdictError(
                f"verdict on {self.episode!r}: the judge failed, there is no score ({self.error})"
            )
        return self.score >= theta

    def check_turns(self, number: int) -> None:
        """Raise ``VerdictError`` where turns are scored, and not ``number`` of them."""
        if self.turns is not None and len(self.turns) != number:
            raise VerdictError(
                f"verdict on {self.episode!r}: expected scores of {number} turns, "
                f"got {len(self.turns)}"
            )

    def to_dict(self) -> dict[str, Any]:
        """The verdict as plain JSON; ``parts`` only where there are any."""
        data: dict[str, Any] = {
            "episode": self.episode,
            "judge": self.judge,
            "score": self.score,
            "reason": self.reason,
            "error": self.error,
            "distribution": None if self.distribution is None else list(self.distribution),
            "seconds": self.seconds,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "turns": None if self.turns is None else list(self.turns),
        }
        if self.parts:
            # Without their episode: it is this one, also where a cache hands it on under a new id.
            data["parts"] = [
                {k: v for k, v in part.to_dict().items() if k != "episode"} for part in self.parts
            ]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Verdict:
        """The inverse of ``to_dict``. Raises ``VerdictError`` for a row that is no verdict."""
        fields = dict(data)
        unknown = sorted(set(fields) - set(cls.__slots__))
        missing = sorted({"episode", "judge", "score"} - set(fields))
        if unknown or missing:
            what = f"unknown {', '.join(unknown)}" if unknown else f"misses {', '.join(missing)}"
            raise VerdictError(f"not a verdict: {what}")
        for name in ("episode", "judge"):
            if not isinstance(fields[name], str):
                raise VerdictError(f"not a verdict: {name} must be text, got {fields[name]!r}")
        if fields.get("error") is not None and not isinstance(fields["error"], str):
            raise VerdictError(f"not a verdict: error must be text, got {fields['error']!r}")
        if fields.get("distribution") is not None:
            try:
                fields["distribution"] = tuple(float(p) for p in fields["distribution"])
            except (TypeError, ValueError) as error:
                raise VerdictError(f"not a verdict: distribution ({error})") from error
        if fields.get("turns") is not None:
            if not isinstance(fields["turns"], list | tuple):
                raise VerdictError(f"not a verdict: turns must be a list, got {fields['turns']!r}")
            fields["turns"] = tuple(fields["turns"])
        parts = fields.get("parts", ())
        if not isinstance(parts, list | tuple) or not all(isinstance(p, Mapping) for p in parts):
            raise VerdictError(f"not a verdict: parts must be a list of verdicts, got {parts!r}")
        own = {"episode": fields["episode"]}
        fields["parts"] = tuple(cls.from_dict({**part, **own}) for part in parts)
        return cls(**fields)


def _check_score(episode: str, what: str, score: object) -> None:
    # bool is an int to Python, but "true" is no score.
    if isinstance(score, bool) or not isinstance(score, int | float):
        raise VerdictError(f"verdict on {episode!r}: {what} must be a number, got {score!r}")
    if not 0 <= score <= MAX_SCORE:  # NaN fails this too
        raise VerdictError(
            f"verdict on {episode!r}: {what} must be in 0..{MAX_SCORE}, got {score!r}"
        )


def _check_distribution(episode: str, distribution: tuple[float, ...]) -> None:
    if len(distribution) != MAX_SCORE + 1:
        raise VerdictError(
            f"verdict on {episode!r}: expected {MAX_SCORE + 1} probabilities, "
            f"got {len(distribution)}"
        )
    if not all(math.isfinite(p) and p >= 0 for p in distribution):
        raise VerdictError(f"verdict on {episode!r}: a probability is negative or not a number")
    if sum(distribution) > 1 + 1e-6:
        raise VerdictError(
            f"verdict on {episode!r}: probabilities sum to {sum(distribution):.6f}, more than 1"
        )
