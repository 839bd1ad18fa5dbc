"""What an algorithm is: a choice of rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from agents.dialect import Dialect
    from training.groups import Group
    from training.rows import Row


class Algorithm(Protocol):
    """What to ask of the teachers for a group, and which rows the groups of a step become.

    An algorithm that learns nothing from small groups may have a ``smallest_group``; a
    ``rollout.group_size`` below it is then refused. One that keeps the good turns of a student's
    episode in a slot has ``needs_turn_scores`` and ``kept_turns(judged)``, how many they are: the
    demonstrator is then asked to go on from there. One that learns nothing from the student's own
    episodes has ``needs_student = False``: the student then does not act, and a group has so many
    empty places (``Group.empty``).
    """

    @property
    def needs_judge(self) -> bool:
        """Whether every episode of the student is judged."""
        ...

    @property
    def needs_demonstrator(self) -> bool:
        """Whether ``slots`` may ask for demonstrations."""
        ...

    def slots(self, group: Group) -> list[int]:
        """Positions in ``group.student`` for which a demonstration is wanted."""
        ...

    def rows(self, groups: Sequence[Group], dialect: Dialect) -> list[Row]:
        """The rows of a step."""
        ...
