"""The first turns of an episode, with their exact tokens: what another agent goes on from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agents.episode import Episode, Segment
from ovd_envs.errors import OVDError


def can_keep(episode: Episode, turns: int) -> bool:
    """Whether ``keep_turns`` can: that many turns are there, and the tokens of each are known."""
    ends = _ends(episode)
    return 0 < turns <= len(episode.turns) and (
        not episode.segments or len(ends) == len(episode.turns)
    )


def keep_turns(episode: Episode, turns: int) -> Episode:
    """An episode that has come as far as the first ``turns`` turns of ``episode``.

    It shares nothing with ``episode`` that changes. Its segments are those of the kept turns, up to
    the last token that was sampled in them: ids, mask and log-probabilities as they were. Raises
    ``OVDError`` where there are fewer turns, or where it cannot be told which tokens are whose.
    """
    if not can_keep(episode, turns):
        raise OVDError(
            f"episode {episode.id!r}: expected {turns} turns to keep, with their tokens, "
            f"got {len(episode.turns)} turns"
        )
    segments: list[Segment] = []
    if episode.segments:
        last, end = _ends(episode)[turns - 1]
        for number, segment in enumerate(episode.segments[: last + 1]):
            to = end if number == last else len(segment.ids)
            segments.append(Segment(segment.ids[:to], segment.mask[:to], segment.logprobs[:to]))
    kept = [replace(turn) for turn in episode.turns[:turns]]
    return Episode(
        task=episode.task,
        env=episode.env,
        agent=episode.agent,
        observation=episode.observation,
        system=episode.system,
        turns=kept,
        segments=segments,
        reward=sum(turn.reward for turn in kept),
        group=episode.group,
        index=episode.index,
        seed=episode.seed,
    )


def _ends(episode: Episode) -> Sequence[tuple[int, int]]:
    """(segment, position after it) of each run of sampled tokens: the end of each turn.

    Where an environment said nothing between two turns, they are one run.
    """
    return [
        (number, place + 1)
        for number, segment in enumerate(episode.segments)
        for place, own in enumerate(segment.mask)
        if own and not any(segment.mask[place + 1 : place + 2])
    ]
