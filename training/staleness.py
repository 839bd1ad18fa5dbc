"""How old the weights are that sampled what is learned from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from agents.episode import Episode
from ovd_envs.errors import OVDError
from training.groups import Group


class StaleError(OVDError):
    """A message that was sampled by weights older, or newer, than it may be learned from."""


def check_staleness(groups: Sequence[Group], step: int, limit: int) -> dict[str, float]:
    """What is logged of the staleness of the groups of ``step``.

    The version of the weights is the number of steps that made them, so step s is learned from by
    version s - 1, and a message's staleness is s - 1 minus its own version. Raises ``StaleError``
    where one is above ``limit``, or below 0: it names the step, the episode and the turn.
    """
    found = []
    for episode, turn, stale in _turns(groups, step):
        if not 0 <= stale <= limit:
            raise StaleError(
                f"step {step}, episode {episode.id!r}, turn {turn}: sampled by version "
                f"{episode.turns[turn].version} of the weights, expected {oldest(step, limit)} to "
                f"{step - 1} (rollout.max_staleness is {limit})"
            )
        found.append(stale)
    return {
        "staleness_mean": math.fsum(found) / len(found) if found else 0.0,
        "staleness_max": max(found, default=0),
    }


def fresh(groups: Sequence[Group], step: int, limit: int) -> bool:
    """Whether ``check_staleness`` would find nothing wrong with them."""
    return all(0 <= stale <= limit for _, _, stale in _turns(groups, step))


def oldest(step: int, limit: int) -> int:
    """The oldest version of the weights that may sample the groups of ``step``."""
    return max(step - 1 - limit, 0)


def _turns(groups: Sequence[Group], step: int) -> Iterator[tuple[Episode, int, int]]:
    """(episode, number of the turn from 0, staleness) of all that the student wrote."""
    for group in groups:
        for judged in group.student:
            for number, turn in enumerate(judged.episode.turns):
                yield judged.episode, number, step - 1 - turn.version
