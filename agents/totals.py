"""What the episodes of a run come to so far, in one line."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from agents.episode import Episode


@dataclass(slots=True)
class Totals:
    """Counts of a run of ``total`` episodes, from when it began to act."""

    total: int
    done: int = 0
    rewards: float = 0.0
    tokens: int = 0
    """Sampled by episodes that ended in this process."""
    began: float = field(default_factory=time.perf_counter)

    @classmethod
    def of(cls, total: int, kept: Iterable[Episode]) -> Totals:
        """Of a run that begins now, some of whose episodes were kept from an earlier one."""
        rewards = [episode.reward for episode in kept]
        return cls(total, done=len(rewards), rewards=sum(rewards))

    def add(self, episode: Episode) -> None:
        """An episode has ended."""
        self.done += 1
        self.rewards += episode.reward
        self.tokens += episode.num_sampled_tokens

    def numbers(self, sampled: int = 0) -> str:
        """Mean reward and speed; ``sampled`` tokens are of episodes that have not ended yet."""
        rate = (self.tokens + sampled) / (time.perf_counter() - self.began)
        reward = f"reward {self.rewards / self.done:.3f} · " if self.done else ""
        return f"{reward}{rate:.0f} tokens/s"

    def line(self, sampled: int = 0) -> str:
        """All of it: how many are done, mean reward, speed, minutes and seconds so far."""
        minutes, seconds = divmod(int(time.perf_counter() - self.began), 60)
        return f"{self.done}/{self.total} done · {self.numbers(sampled)} · {minutes}:{seconds:02d}"
