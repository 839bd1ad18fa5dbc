"""A group: the student's episodes of one task, their verdicts, and the teacher's in their place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agents.episode import Episode
from ovd_envs.errors import OVDError
from ovd_envs.task import Task
from teachers.verdict import Verdict


@dataclass(slots=True)
class Judged:
    """A student's episode and what the judge said of it (``None``: no judge was asked).

    Raises ``VerdictError`` where the verdict scores another number of turns than there are.
    """

    episode: Episode
    verdict: Verdict | None = None

    def __post_init__(self) -> None:
        if self.verdict is not None:
            self.verdict.check_turns(len(self.episode.turns))


@dataclass(slots=True)
class Group:
    """All that is known of one task at one step.

    ``teacher`` holds the demonstrator's episodes by the index of the slot they were asked for.
    """

    task: Task
    student: list[Judged]
    teacher: dict[int, Episode] = field(default_factory=dict)
    empty: int = 0
    """Places without a student's episode, of an algorithm that needs none."""

    @property
    def size(self) -> int:
        """Places of the group, for a student's episode or a teacher's."""
        return len(self.student) + self.empty

    @property
    def usable(self) -> list[Judged]:
        """The student's episodes without those that ended in an error or whose judge failed."""
        return [self.student[place] for place in self.usable_places]

    @property
    def usable_places(self) -> list[int]:
        """The places in ``student`` of those that are ``usable``."""
        return [
            place
            for place, judged in enumerate(self.student)
            if judged.episode.error is None
            and not (judged.verdict is not None and judged.verdict.failed)
        ]

    def to_dict(self) -> dict[str, Any]:
        """The group as plain JSON."""
        return {
            "task": self.task.to_dict(),
            "student": [
                {
                    "episode": judged.episode.to_dict(),
                    "verdict": judged.verdict.to_dict() if judged.verdict else None,
                }
                for judged in self.student
            ],
            "teacher": {str(index): e.to_dict() for index, e in self.teacher.items()},
            "empty": self.empty,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Group:
        """The inverse of ``to_dict``."""
        return cls(
            task=Task.from_dict(data["task"]),
            student=[
                Judged(
                    Episode.from_dict(row["episode"]),
                    Verdict.from_dict(row["verdict"]) if row["verdict"] else None,
                )
                for row in data["student"]
            ],
            teacher={int(i): Episode.from_dict(e) for i, e in data["teacher"].items()},
            empty=data.get("empty", 0),
        )


def group_episodes(episodes: Sequence[Episode], verdicts: Sequence[Verdict] | None) -> list[Group]:
    """Groups by the episodes' own group names, in the order of first appearance.

    Verdicts are matched by episode id, never by position. Raises ``OVDError`` where an episode
    has no verdict, or where one group holds two tasks.
    """
    by_id = {verdict.episode: verdict for verdict in verdicts} if verdicts is not None else None
    groups: dict[str, Group] = {}
    for episode in episodes:
        if by_id is not None and episode.id not in by_id:
            raise OVDError(f"episode {episode.id!r}: no verdict")
        group = groups.setdefault(episode.group, Group(episode.task, []))
        if group.task.id != episode.task.id:
            raise OVDError(
                f"group {episode.group!r}: expected one task, "
                f"got {group.task.id!r} and {episode.task.id!r}"
            )
        group.student.append(Judged(episode, by_id[episode.id] if by_id is not None else None))
    return list(groups.values())
