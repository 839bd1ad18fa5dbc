"""What is kept of a running episode's state: its past, and what its environment holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ovd_envs.errors import OVDError
from ovd_envs.task import Task


class SnapshotError(OVDError):
    """A state that cannot be taken or put back, or a replay that went another way."""


@dataclass(frozen=True, slots=True)
class Past:
    """What has happened in an episode: enough to play it again."""

    task: Task
    training_step: int | None
    random: Mapping[str, Any]
    """State of the environment's random numbers when the task had been chosen."""
    observation: str
    """The first observation."""
    steps: Sequence[tuple[str, str, float]] = ()
    """Message, observation and reward of each turn."""
    elapsed: float = 0.0
    """Seconds since it began."""
    ended: bool | None = None
    """Whether it had ended; ``None``: as it comes out when it is played again."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An episode's state, from ``snapshot``, for ``restore``; it shares nothing that changes."""

    env: str
    """Class of the environment."""
    past: Past
    fields: Mapping[str, Any] | None = None
    """What ``TextEnv`` keeps of the episode; ``None``: the past is played again."""
    own: Any = None
    """What ``TextEnv.save_state`` gave."""
    wrappers: Sequence[tuple[str, Mapping[str, Any]]] = field(default_factory=tuple)
    """Class and attributes of each of Gymnasium's wrappers, the outermost first."""
