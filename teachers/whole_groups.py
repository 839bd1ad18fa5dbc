"""Groups of episodes for judges that read a group as a whole (``scores_groups``)."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from agents.episode import Episode
from teachers.protocol import Judge

#: Episodes that a judge is asked for together, each with its place: one, or a whole group.
Unit = list[tuple[int, Episode]]

#: Agent, task and group: what the episodes of one group have in common.
GroupKey = tuple[str, str, str]


def group_key(episode: Episode) -> GroupKey:
    """What group an episode belongs to."""
    return episode.agent, episode.task.id, episode.group


def scores_groups(judge: Judge) -> bool:
    """Whether the judge reads a group as a whole."""
    return bool(getattr(judge, "scores_groups", False))


def in_groups(episodes: Iterable[Episode]) -> list[list[Episode]]:
    """The groups in the order of their first episodes, each in the given order."""
    groups: dict[GroupKey, list[Episode]] = {}
    for episode in episodes:
        groups.setdefault(group_key(episode), []).append(episode)
    return list(groups.values())


@dataclass(frozen=True, slots=True)
class Grouping:
    """Which of some episodes, by their places, belong together.

    An episode that ended in an error is judged by nobody and belongs to none; where an id comes
    again, e.g. in two files that were joined, a new group begins.
    """

    groups: tuple[tuple[int, ...], ...]
    """The places of each group's episodes."""
    of: tuple[int | None, ...]
    """The number of each place's group."""

    @classmethod
    def by(cls, members: Iterable[tuple[str, GroupKey | None]]) -> Grouping:
        """The grouping of episodes in order: (id, group), no group where one ended in an error."""
        seen: Counter[str] = Counter()
        numbers: dict[tuple[GroupKey, int], int] = {}
        groups: list[list[int]] = []
        of: list[int | None] = []
        for place, (name, key) in enumerate(members):
            if key is None:
                of.append(None)
                continue
            number = numbers.setdefault((key, seen[name]), len(groups))
            if number == len(groups):
                groups.append([])
            groups[number].append(place)
            of.append(number)
            seen[name] += 1
        return cls(tuple(map(tuple, groups)), tuple(of))

    @classmethod
    def of_episodes(cls, episodes: Iterable[Episode]) -> Grouping:
        """The grouping of some episodes, in order."""
        return cls.by((e.id, None if e.error is not None else group_key(e)) for e in episodes)

    def units(self, episodes: Iterable[tuple[int, Episode]]) -> Iterator[Unit]:
        """(place, episode) pairs, those of a group together once the last of it has come."""
        begun: dict[int, Unit] = {}
        for place, episode in episodes:
            group = self.of[place]
            if group is None:
                yield [(place, episode)]
                continue
            unit = begun.setdefault(group, [])
            unit.append((place, episode))
            if len(unit) == len(self.groups[group]):
                yield begun.pop(group)

    def contexts(self, contents: Sequence[str]) -> list[str]:
        """For each place what its verdict depends on beside its own content: a hash.

        That is the contents (``content_hash``) of its whole group in order, and which it is.
        """
        found = [""] * len(contents)
        for places in self.groups:
            whole = [contents[place] for place in places]
            for number, place in enumerate(places):
                text = json.dumps([number, whole])
                found[place] = hashlib.sha256(text.encode()).hexdigest()
        return found
