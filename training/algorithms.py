"""Every algorithm is a choice of rows: functions from groups to what the trainer eats.

``ovd`` is On-policy Verbal Distillation (arXiv 2601.21968), ``grpo`` learns from the outcome
alone, ``sft`` imitates the demonstrator. Register your own in ``training.registry.algorithms`` or
under the entry-point group ``ovd.algorithms``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from agents.dialect import Dialect
from agents.episode import Episode
from agents.kept_turns import can_keep
from training.groups import Group, Judged
from training.rows import Row, episode_rows, merge_rows

#: Keeps a division by the standard deviation finite.
EPSILON = 1e-4

#: A baseline that is the mean of one episode says nothing of it.
SMALLEST_GROUP = 2

Scale = Literal["none", "group"]


def advantages(rewards: Sequence[float], baseline_of: Sequence[float], scale: Scale) -> list[float]:
    """(R - mean) for each reward, the mean taken over ``baseline_of``.

    With ``scale`` "group" divided by the standard deviation (ddof 1) of the same episodes plus
    1e-4; where that deviation is 0, every advantage is 0. DeepSeekMath, arXiv 2402.03300, eq. 3.
    """
    mean = mean_reward(baseline_of)
    if scale == "none":
        return [reward - mean for reward in rewards]
    squares = math.fsum((reward - mean) ** 2 for reward in baseline_of)
    deviation = math.sqrt(squares / (len(baseline_of) - 1)) if len(baseline_of) > 1 else 0.0
    if deviation == 0:
        return [0.0] * len(rewards)
    return [(reward - mean) / (deviation + EPSILON) for reward in rewards]


def mean_reward(rewards: Sequence[float]) -> float:
    """The mean; of equal rewards exactly that reward, which a sum divided again may miss."""
    lowest, highest = min(rewards), max(rewards)
    return lowest if lowest == highest else math.fsum(rewards) / len(rewards)


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class OVD(_Options):
    """On-policy Verbal Distillation: accept what the judge scores theta or more, replace the rest.

    ``select: rank`` (the paper's version 2) accepts the ``keep`` best of each group instead, by
    score and, where equal, by place; theta then only tells the bad turns of ``suffix``.

    ``replace: whole`` puts a demonstrator's episode in the place of a rejected one, ``drop``
    leaves the place empty. ``suffix`` (the paper's version 2) keeps its turns up to the first that
    the judge scores below theta, and lets the demonstrator go on from there: the kept turns stay
    the student's own in the loss, with the ids and log-probabilities that it sampled, and the mixed
    episode has one reward and one advantage, for the student's turns as for the teacher's. Where no
    turn is below theta, or the first is, or the judge scored no turns of this episode, it is
    replaced whole. ``keep_rejected`` leaves the student's rejected episode in the group
    too. ``baseline: group`` is the mean reward of the final mixed group, ``student`` of the
    student's own episodes before replacement.
    """

    theta: float = Field(default=7, ge=0, le=10)
    select: Literal["threshold", "rank"] = "threshold"
    keep: int | None = Field(default=None, ge=1)
    replace: Literal["whole", "suffix", "drop"] = "whole"
    keep_rejected: bool = False
    baseline: Literal["group", "student"] = "student"
    scale: Scale = "none"

    @model_validator(mode="after")
    def _check(self) -> OVD:
        if self.baseline == "student" and self.scale == "group":
            raise ValueError(
                "baseline: student goes with scale: none (an all-wrong group has deviation 0, "
                "and its teacher's advantage would drown the others)"
            )
        if (self.select == "rank") != (self.keep is not None):
            raise ValueError(
                "select: rank goes with keep, how many of a group stay; got select: "
                f"{self.select} and keep: {self.keep}"
            )
        return self

    needs_judge: ClassVar[bool] = True
    smallest_group: ClassVar[int] = SMALLEST_GROUP

    @property
    def needs_demonstrator(self) -> bool:
        """Whether rejected episodes are replaced."""
        return self.replace != "drop"

    @property
    def needs_turn_scores(self) -> bool:
        """Whether the judge must say which turn was bad."""
        return self.replace == "suffix"

    def kept_turns(self, judged: Judged) -> int:
        """Turns of a rejected episode that stay; 0: it is replaced whole."""
        turns = judged.verdict.turns if judged.verdict is not None else None
        if self.replace != "suffix" or turns is None:
            return 0
        bad = (n for n, score in enumerate(turns) if score is not None and score < self.theta)
        first = next(bad, 0)
        return first if can_keep(judged.episode, first) else 0

    def accepted(self, group: Group) -> list[int]:
        """The places of the student's episodes that stay.

        An episode that ended in an error is neither accepted nor rejected, nor is one whose judge
        failed. Raises ``ValueError`` where one was not judged.
        """
        scores: dict[int, float] = {}
        for place in group.usable_places:
            judged = group.student[place]
            if judged.verdict is None or judged.verdict.score is None:
                raise ValueError(f"episode {judged.episode.id!r} was not judged")
            scores[place] = judged.verdict.score
        if self.select == "threshold":
            return [place for place, score in scores.items() if score >= self.theta]
        return sorted(sorted(scores, key=lambda place: -scores[place])[: self.keep])

    def slots(self, group: Group) -> list[int]:
        """The rejected episodes' places; a failed judge rejects nothing."""
        if self.replace == "drop":
            return []
        accepted = self.accepted(group)
        return [place for place in group.usable_places if place not in accepted]

    def rows(self, groups: Sequence[Group], dialect: Dialect) -> list[Row]:
        """The rows of the final mixed groups, equal ones merged."""
        rows: list[Row] = []
        for number, group in enumerate(groups):
            rows += self._group_rows(number, group, dialect)
        return merge_rows(rows)

    def _group_rows(self, number: int, group: Group, dialect: Dialect) -> list[Row]:
        usable = group.usable
        if len(usable) < self.smallest_group:
            return []
        own = [judged.episode.reward for judged in usable]
        staying = group.usable_places if self.keep_rejected else self.accepted(group)
        students = [group.student[place].episode for place in staying]
        teachers = useful_demonstrations(group) if self.needs_demonstrator else []
        mixed = [*students, *teachers]
        if not mixed:
            return []
        rewards = [episode.reward for episode in mixed]
        gains = advantages(rewards, own if self.baseline == "student" else rewards, self.scale)
        return _rows(number, students, teachers, gains, dialect)


class GRPO(_Options):
    """Group-relative policy optimisation (arXiv 2402.03300): the outcome alone, no teacher."""

    scale: Scale = "group"

    needs_judge: ClassVar[bool] = False
    needs_demonstrator: ClassVar[bool] = False
    smallest_group: ClassVar[int] = SMALLEST_GROUP

    def slots(self, group: Group) -> list[int]:
        """None: nobody demonstrates."""
        return []

    def rows(self, groups: Sequence[Group], dialect: Dialect) -> list[Row]:
        """Every episode of the student with its reward against the group's."""
        rows: list[Row] = []
        for number, group in enumerate(groups):
            episodes = [judged.episode for judged in group.usable]
            if len(episodes) < self.smallest_group:
                continue
            rewards = [episode.reward for episode in episodes]
            gains = advantages(rewards, rewards, self.scale)
            rows += _rows(number, episodes, [], gains, dialect)
        return merge_rows(rows)


class SFT(_Options):
    """Imitation: a demonstrator's episode for every slot, every advantage 1.

    Nothing is learned from the student's own episodes, so it does not act.
    """

    needs_student: ClassVar[bool] = False
    needs_judge: ClassVar[bool] = False
    needs_demonstrator: ClassVar[bool] = True

    def slots(self, group: Group) -> list[int]:
        """All of them."""
        return list(range(group.size))

    def rows(self, groups: Sequence[Group], dialect: Dialect) -> list[Row]:
        """The demonstrator's episodes."""
        rows: list[Row] = []
        for number, group in enumerate(groups):
            teachers = [e for _, e in sorted(group.teacher.items()) if e.error is None]
            rows += _rows(number, [], teachers, [1.0] * len(teachers), dialect)
        return merge_rows(rows)


def useful_demonstrations(group: Group) -> list[Episode]:
    """The demonstrator's episodes whose reward exceeds the mean of the student's own."""
    own = [judged.episode.reward for judged in group.usable]
    mean = mean_reward(own) if own else 0.0
    return [e for _, e in sorted(group.teacher.items()) if e.error is None and e.reward > mean]


def _rows(
    number: int,
    students: Sequence[Episode],
    teachers: Sequence[Episode],
    gains: Sequence[float],
    dialect: Dialect,
) -> list[Row]:
    """Rows of the student's episodes and the teacher's; ``gains`` in that order."""
    rows: list[Row] = []
    for place, (episode, gain) in enumerate(zip([*students, *teachers], gains, strict=True)):
        teacher = place >= len(students)
        rows += episode_rows(number, episode, gain, dialect, teacher=teacher)
    return rows
