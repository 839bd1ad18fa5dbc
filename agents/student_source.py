"""What the name of a student stands for: a model, and how it acts where that is recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class StudentSource:
    """A model, and what is known of how it acts; ``None`` or empty where nothing is."""

    model: str
    """An alias, a folder or a hub name: see ``agents.models``."""
    dtype: str = "auto"
    max_tokens: int | None = None
    """Most tokens of one message."""
    max_context: int | None = None
    """Most tokens of an episode, observations included."""
    max_episode_tokens: int | None = None
    """Most tokens of all its messages together."""
    dialect: str | None = None
    env: str | None = None
    """The environment that it learned in, and that one's options."""
    env_options: Mapping[str, Any] = field(default_factory=dict)


#: Functions that know some names; the first that gives a source wins. ``training`` adds the one
#: that reads run folders.
readers: list[Callable[[str], StudentSource | None]] = []


def find_source(name: str) -> StudentSource:
    """What ``name`` stands for: what a reader says, else the model of that name."""
    for read in readers:
        if (source := read(name)) is not None:
            return source
    return StudentSource(name)
