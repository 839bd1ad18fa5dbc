"""The judge that repeats the environment's outcome."""

from __future__ import annotations

from collections.abc import Sequence

from agents.episode import Episode
from teachers.verdict import MAX_SCORE, Verdict


class OutcomeJudge:
    """Scores an episode 9 x its reward: an environment's reward from 0 to 1, as a verdict.

    A reward outside 0..1 is an error verdict, for it has no place on the scale.
    """

    name = "outcome"
    show_gold = True
    fingerprint = "outcome/1"

    def judge(self, episodes: Sequence[Episode]) -> list[Verdict]:
        """One verdict for every episode."""
        return [self._verdict(episode) for episode in episodes]

    def _verdict(self, episode: Episode) -> Verdict:
        if not 0 <= episode.reward <= 1:
            return Verdict(
                episode=episode.id,
                judge=self.name,
                score=None,
                error=f"the reward {episode.reward:g} is not in 0..1",
            )
        return Verdict(
            episode=episode.id,
            judge=self.name,
            score=MAX_SCORE * episode.reward,
            reason=f"The environment's reward is {episode.reward:g} ({episode.end_reason}).",
        )
