"""An episode: one finished run of an agent in an environment, with its exact tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ovd_envs.errors import OVDError
from ovd_envs.jsonl import read_jsonl_numbered, write_jsonl
from ovd_envs.task import Task

#: Version of the JSON form below; a reader refuses a version that it does not know.
SCHEMA_VERSION = 1


@dataclass(slots=True)
class Turn:
    """One message of the acting model and the observation that follows it."""

    action: str
    observation: str = ""
    reward: float = 0.0
    #: Why the message ended: "end_of_turn", "stop_string", "length" or "scripted".
    stop: str = "end_of_turn"
    #: Version of the weights that sampled the message: the step after which they came to be.
    version: int = 0
    #: Seconds that the agent and the environment took.
    agent_seconds: float = 0.0
    env_seconds: float = 0.0


@dataclass(slots=True)
class Segment:
    """Token ids exactly as the model saw and sampled them.

    ``mask[i]`` is 1 where the acting model sampled ``ids[i]`` and 0 where it was given (prompt,
    observation, template). ``logprobs[i]`` is the sampler's log-probability of ``ids[i]`` at the
    sampling temperature, 0.0 where the mask is 0. The three have the same length.
    """

    ids: list[int] = field(default_factory=list)
    mask: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        lengths = len(self.ids), len(self.mask), len(self.logprobs)
        if len(set(lengths)) != 1:
            raise ValueError(
                "a segment's ids, mask and logprobs must have one length, got {}, {}, {}".format(
                    *lengths
                )
            )

    def extend_given(self, ids: Sequence[int]) -> None:
        """Append tokens that the environment or the template wrote."""
        self.ids.extend(ids)
        self.mask.extend([0] * len(ids))
        self.logprobs.extend([0.0] * len(ids))

    def extend_sampled(self, ids: Sequence[int], logprobs: Sequence[float]) -> None:
        """Append tokens that the acting model sampled."""
        if len(ids) != len(logprobs):
            raise ValueError(f"{len(ids)} ids but {len(logprobs)} logprobs")
        self.ids.extend(ids)
        self.mask.extend([1] * len(ids))
        self.logprobs.extend(logprobs)


@dataclass(slots=True)
class Episode:
    """A run of ``agent`` on ``task`` in ``env``; mutable while it runs, saved when it has ended.

    ``observation`` is what the environment wrote at reset. ``segments`` holds one segment where
    each prompt goes on where the last reply ended, one for each prompt that does not (thinking
    models), none where the agent has no tokens (a script, a person, an API).
    """

    task: Task
    env: str
    agent: str
    observation: str = ""
    turns: list[Turn] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    #: The environment's outcome: the sum of the rewards of the turns.
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    #: "answered", "turn_limit", "context_limit", "error", ...; empty while the episode runs.
    end_reason: str = ""
    #: Traceback text where the environment or the agent raised.
    error: str | None = None
    #: Group (one per task of a rollout) and index in it: what a group is made of.
    group: str = "0"
    index: int = 0
    #: Seed of the random numbers: (run seed, step, position of the task, index).
    seed: tuple[int, ...] = (0,)
    started: float = 0.0
    seconds: float = 0.0
    #: Of an episode in which a demonstrator goes on where a student's went wrong: how many turns
    #: are the student's, and its name. ``segments`` are then those turns' tokens, exactly as the
    #: student sampled them; the demonstrator's turns have none.
    kept: int = 0
    begun_by: str = ""
    #: The environment's system message (``TextEnv.system``), where it has one.
    system: str | None = None
    #: The environment's info at the end (JSON), e.g. the outcome of grading.
    info: dict[str, Any] = field(default_factory=dict)
    #: Strings that end a message in this environment (``TextEnv.stop_strings``), for the agent
    #: while the episode runs; not saved.
    stop_strings: tuple[str, ...] = field(default=(), compare=False)
    #: The turns that this one goes on from, for who begins it; not saved.
    start: Episode | None = field(default=None, compare=False, repr=False)

    @property
    def id(self) -> str:
        """Identity within one rollout file: agent, group and index."""
        return f"{self.agent}:{self.group}:{self.index}"

    @property
    def done(self) -> bool:
        """Whether the episode has ended."""
        return bool(self.end_reason)

    @property
    def answer(self) -> str:
        """The last message of the acting model, or the empty string."""
        return self.turns[-1].action if self.turns else ""

    @property
    def written_by(self) -> list[str]:
        """Who wrote each turn."""
        beside = self.info.get("written_by")
        if isinstance(beside, list) and len(beside) == len(self.turns):
            return [str(name) for name in beside]
        return [self.begun_by if n < self.kept else self.agent for n in range(len(self.turns))]

    @property
    def num_sampled_tokens(self) -> int:
        """Number of tokens that the acting model sampled."""
        return sum(sum(segment.mask) for segment in self.segments)

    def to_dict(self) -> dict[str, Any]:
        """The episode as plain JSON, with its schema version."""
        return {
            "schema": SCHEMA_VERSION,
            "id": self.id,
            "task": self.task.to_dict(),
            "env": self.env,
            "agent": self.agent,
            "observation": self.observation,
            "system": self.system,
            "turns": [{name: getattr(t, name) for name in Turn.__slots__} for t in self.turns],
            "segments": [
                {"ids": s.ids, "mask": s.mask, "logprobs": s.logprobs} for s in self.segments
            ],
            "reward": self.reward,
            "terminated": self.terminated,
            "truncated": self.truncated,
            "end_reason": self.end_reason,
            "error": self.error,
            "group": self.group,
            "index": self.index,
            "seed": list(self.seed),
            "kept": self.kept,
            "begun_by": self.begun_by,
            "started": self.started,
            "seconds": self.seconds,
            "info": self.info,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Episode:
        """The inverse of ``to_dict``. Raises ``OVDError`` for another schema version."""
        if data.get("schema") != SCHEMA_VERSION:
            raise OVDError(
                f"episode schema {data.get('schema')!r}: this version reads {SCHEMA_VERSION}"
            )
        fields = {k: v for k, v in data.items() if k not in ("schema", "id")}
        fields["task"] = Task.from_dict(data["task"])
        fields["turns"] = [Turn(**turn) for turn in data["turns"]]
        fields["segments"] = [Segment(**segment) for segment in data["segments"]]
        fields["seed"] = tuple(data["seed"])
        return cls(**fields)


def read_episodes(path: str | Path) -> Iterator[Episode]:
    """Episodes of a JSONL file as a stream. Raises ``OVDError`` naming file and row."""
    for number, row in read_jsonl_numbered(path):
        try:
            yield Episode.from_dict(row)
        except (OVDError, KeyError, TypeError, ValueError) as error:
            message = f"misses {error}" if isinstance(error, KeyError) else str(error)
            raise OVDError(f"{path}, row {number}: not an episode ({message})") from error


def write_episodes(path: str | Path, episodes: Iterable[Episode]) -> None:
    """Write episodes as JSONL, atomically."""
    write_jsonl(path, (episode.to_dict() for episode in episodes))
