"""Rows: what the trainer eats. It sees tokens, masks, advantages and weights, and no algorithm."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from agents.dialect import Dialect
from agents.episode import Episode


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence of tokens to learn from.

    ``mask[i]`` is 1 where token i is the acting model's own; ``advantages[i]`` belongs to token
    i and is 0.0 where the mask is 0. ``weight`` counts how many equal rows this one stands for.
    ``sampler_logprobs[i]`` is what the sampler said of a token that the student sampled, 0.0
    elsewhere; ``teacher`` tells that a demonstrator wrote it, all but its first ``kept`` tokens:
    those are a student's own turns and what it read. All four sequences have one length.
    """

    group: int
    ids: tuple[int, ...]
    mask: tuple[int, ...]
    advantages: tuple[float, ...]
    sampler_logprobs: tuple[float, ...]
    weight: float = 1.0
    teacher: bool = False
    kept: int = 0

    def __post_init__(self) -> None:
        lengths = {len(self.ids), len(self.mask), len(self.advantages), len(self.sampler_logprobs)}
        if len(lengths) != 1:
            raise ValueError(f"a row's sequences must have one length, got {sorted(lengths)}")
        if self.ids and self.mask[0]:
            raise ValueError("a row's first token cannot be trained: nothing predicts it")

    def by_teacher(self, place: int) -> bool:
        """Whether a demonstrator wrote the token at ``place``."""
        return self.teacher and place >= self.kept

    @property
    def num_trained(self) -> int:
        """Number of tokens with mask 1."""
        return sum(self.mask)


def episode_rows(
    group: int, episode: Episode, advantage: float, dialect: Dialect, *, teacher: bool = False
) -> list[Row]:
    """One row for each segment of ``episode``, every own token with the same advantage.

    An episode without tokens (a script's, a person's, an API's) is tokenised here, once, with
    the student's dialect. Of one that a demonstrator went on with (``Episode.kept``) the student's
    turns keep the ids and log-probabilities that it sampled, and count as its own; the advantage
    is that of the whole.
    """
    own_tokens = bool(episode.segments) and not teacher
    segments = episode.segments if own_tokens else dialect.segments(episode)
    kept = len(episode.segments) if teacher and episode.kept else 0
    return [
        Row(
            group=group,
            ids=tuple(segment.ids),
            mask=tuple(segment.mask),
            advantages=tuple(advantage * m for m in segment.mask),
            sampler_logprobs=tuple(segment.logprobs),
            teacher=teacher,
            kept=len(episode.segments[n].ids) if n < kept else 0,
        )
        for n, segment in enumerate(segments)
        if any(segment.mask)
    ]


def merge_rows(rows: Iterable[Row]) -> list[Row]:
    """Rows of one group with equal ids, mask and advantages become one, their weights added.

    A merged row stands for its copies exactly: its weight counts in the numerator and in the
    denominator of the loss. A student's row is never merged with a teacher's, whose tokens have
    no sampler.
    """
    merged: dict[tuple[object, ...], Row] = {}
    for row in rows:
        key = (row.group, row.teacher, row.kept, row.ids, row.mask, row.advantages)
        same = merged.get(key)
        merged[key] = replace(same, weight=same.weight + row.weight) if same else row
    return list(merged.values())


def total_weight(rows: Sequence[Row]) -> float:
    """The denominator of a step's loss: the sum over rows of weight times trained tokens."""
    return sum(row.weight * row.num_trained for row in rows)
