"""What a judge model has answered about one episode, on the way to a verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from teachers.digits import reduced
from teachers.judge_reply import Fault, Reply, parse_reply, told
from teachers.verdict import Verdict


@dataclass(slots=True)
class Answer:
    """The newest reply, what it says or why it cannot be used, and the tokens of all."""

    parsed: Reply | None = None
    distribution: tuple[float, ...] | None = None
    fault: str = ""
    raw: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def read(self, text: str, mark: str, stop: str) -> bool:
        """Read a reply that ended for the reason ``stop``; whether it can be used."""
        self.raw = text
        try:
            self.parsed, self.fault = parse_reply(text, mark), ""
        except Fault as fault:
            self.fault = told(fault, stop)
        return not self.fault

    def verdict(self, episode: str, judge: str, *, reduce: str, seconds: float) -> Verdict:
        """The verdict on the episode with that id: an error with the raw reply, or a score."""
        known: dict[str, Any] = {
            "episode": episode,
            "judge": judge,
            "seconds": seconds,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
        }
        if self.parsed is None:
            raw = f"; the reply was: {self.raw[:500]!r}" if self.raw is not None else ""
            return Verdict(score=None, error=f"{self.fault}{raw}", **known)
        return Verdict(
            score=reduced(self.parsed.score, self.distribution, reduce),
            reason=self.parsed.reason,
            distribution=self.distribution,
            **known,
        )
