"""What the name of a student stands for: a model, and how it acts where that is recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ovd_envs
from ovd_envs.errors import OVDError

if TYPE_CHECKING:
    from agents.openai_backend import OpenAIStudent
    from agents.student import Student

#: Most tokens of one message, where neither a command nor a run says how many.
MAX_TOKENS = 256


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


@dataclass(frozen=True, slots=True)
class ChosenStudent:
    """A student in an environment, everything that a command left open decided."""

    name: str
    env: str
    env_options: Mapping[str, Any]
    max_tokens: int
    dialect: str
    source: StudentSource

    @property
    def settings(self) -> dict[str, Any]:
        """What its episodes depend on beside name, environment and temperature, as plain JSON."""
        source = self.source
        return {
            "max_tokens": self.max_tokens,
            "max_context": source.max_context,
            "max_episode_tokens": source.max_episode_tokens,
            "env_options": dict(self.env_options),
            "dialect": self.dialect,
            # A run's newest one changes under its name.
            "checkpoint": source.model if source.model != self.name else None,
        }

    def load(self, *, temperature: float, batch_size: int, backend: str) -> Student | OpenAIStudent:
        """Load its model, with the budgets of its source. Raises ``OVDError``."""
        import agents
        from agents.student import Student

        student = agents.load_student(
            self.source.model,
            temperature=temperature,
            max_tokens=self.max_tokens,
            dtype=self.source.dtype,
            batch_size=batch_size,
            dialect=self.dialect,
            backend=backend,
        )
        student.name = self.name
        if isinstance(student, Student):
            limit = self.source.max_context or student.max_context
            student.max_context = min(limit, student.max_context)
            student.max_episode_tokens = self.source.max_episode_tokens
        return student


def choose_student(
    name: str,
    env: str | None,
    env_options: Mapping[str, Any],
    *,
    max_tokens: int | None = None,
    dialect: str | None = None,
) -> ChosenStudent:
    """The student called ``name``, a model or a run's folder, in ``env``.

    What is not given is the run's: the environment, options of that environment, most tokens of a
    message, dialect. Raises ``OVDError`` where there is no environment, or none of that name and
    options.
    """
    source = find_source(name)
    env = env or source.env
    if env is None:
        raise OVDError(f"ENV: expected the name of an environment, for {name!r} is no run")
    options = {**source.env_options, **env_options} if env == source.env else dict(env_options)
    own = ovd_envs.make(env, **options).dialect
    return ChosenStudent(
        name=name,
        env=env,
        env_options=options,
        max_tokens=max_tokens or source.max_tokens or MAX_TOKENS,
        dialect=dialect or source.dialect or own,
        source=source,
    )
