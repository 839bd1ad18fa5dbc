"""``TextEnv``: a Gymnasium environment whose observations and actions are text."""

from __future__ import annotations

import copy
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

import gymnasium
from gymnasium.error import ResetNeeded

from ovd_envs.errors import OVDError, TaskError
from ovd_envs.past import Past, Snapshot, SnapshotError
from ovd_envs.spaces import UnicodeText
from ovd_envs.task import Task, TaskSource

#: The ends that ``TextEnv`` itself brings about, in the order in which they are checked.
BUDGET_ENDS = ("turn_limit", "turn_characters", "character_limit", "token_limit", "time_limit")


@dataclass(frozen=True, slots=True)
class Budget:
    """What one episode may use; ``None`` is without limit.

    Checked after each turn in the order of the fields (a natural end beats them all); the first
    that is used up truncates the episode with the end reason named here.
    """

    turns: int | None = 1
    """Messages of the acting model; the episode ends after this many ("turn_limit")."""
    characters_per_turn: int | None = None
    """Code points of one message; a longer one ends the episode ("turn_characters")."""
    characters: int | None = None
    """Code points of all messages together; more end it ("character_limit")."""
    tokens: int | None = None
    """Tokens of all messages together by ``count_tokens``; more end it ("token_limit")."""
    seconds: float | None = None
    """Seconds since ``reset``, checked after a turn ("time_limit"); not deterministic."""
    count_tokens: Callable[[str], int] | None = None
    """Number of tokens of a text; needed where ``tokens`` is set."""

    def __post_init__(self) -> None:
        for name in ("turns", "characters_per_turn", "characters", "tokens", "seconds"):
            value = getattr(self, name)
            kind, kinds = ("number", int | float) if name == "seconds" else ("whole number", int)
            if value is not None and (
                isinstance(value, bool) or not isinstance(value, kinds) or not value > 0
            ):
                raise OVDError(f"budget {name}: expected a {kind} above 0 or null, got {value!r}")
        if self.tokens is not None and self.count_tokens is None:
            raise OVDError("budget tokens: needs count_tokens, a function from text to a number")

    @classmethod
    def of(cls, value: Budget | Mapping[str, Any] | None, **defaults: Any) -> Budget:
        """A budget from itself, a mapping (as YAML has it) or nothing, over ``defaults``.

        Raises ``OVDError`` for an unknown field.
        """
        if isinstance(value, Budget):
            return value
        if value is not None and not isinstance(value, Mapping):
            raise OVDError(f"budget: expected a mapping like {{seconds: 60}}, got {value!r}")
        known = [f.name for f in fields(cls)]
        for name in value or {}:
            if name not in known:
                raise OVDError(f"budget: no field {name!r}, expected one of {', '.join(known)}")
        return cls(**{**defaults, **(value or {})})

    @classmethod
    def beside(
        cls, value: Budget | Mapping[str, Any] | None, *, turns: int, option: str = "turns"
    ) -> Budget:
        """``value`` with these ``turns``, which the environment takes as the option ``option``.

        A ``Budget`` has one turn where nobody said how many, so its own are not looked at. Raises
        ``OVDError`` for a mapping that has some too.
        """
        if isinstance(value, Mapping) and "turns" in value:
            raise OVDError(
                f"budget turns: give {option}={value['turns']!r} to the environment itself"
            )
        return replace(cls.of(value), turns=turns)


@dataclass(frozen=True, slots=True)
class Reply:
    """What an environment answers to one message."""

    observation: str = ""
    """Text for the acting model; never a gold answer."""
    reward: float = 0.0
    """Reward of this turn."""
    end: str | None = None
    """Why the episode has ended ("answered", ...), or ``None`` where it goes on."""
    info: Mapping[str, Any] = field(default_factory=dict)
    """Plain JSON for ``info``; no gold answer (``TextEnv`` adds "answers" at the end)."""


class TextEnv(gymnasium.Env[str, str], ABC):
    """An environment in which a language model acts by writing messages.

    A subclass writes ``observe`` (the first observation of a task) and ``respond`` (the reply to a
    message); tasks, seeds, budgets, ends and ``info`` are the business of this class.

    ``info`` holds "task" (id), "turn" (messages so far) and "end_reason" ("" while the episode
    runs), then whatever ``Reply.info`` brings, and from the end on "answers", the gold answers.
    ``terminated`` means that the environment ended the episode, ``truncated`` that a budget did.

    Args:
        tasks: where the tasks come from.
        split: which of its splits ``reset`` draws from.
        budget: a ``Budget`` or a mapping of its fields.
        render_mode: "ansi" (``render`` returns the episode as text) or "human" (printed).
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 - declared so by Gymnasium
        "render_modes": ["ansi", "human"],
        "render_fps": 4,
    }

    #: Options that ``reset`` understands.
    reset_options: ClassVar[tuple[str, ...]] = ("task", "split", "training_step")

    #: How a conversation with this environment is best put into tokens: "chat" (observations are
    #: messages of the chat template) or "inline" (they stand within the assistant's own text).
    dialect: str = "chat"

    #: Strings that end a message, and belong to it, where the model's end of turn does not end it
    #: (in "inline"): ``</search>``.
    stop_strings: tuple[str, ...] = ()

    #: What a model that acts here is told before its first observation, as a system message; set
    #: it in ``observe`` where it hangs on the task. ``None``: what its chat template says.
    system: str | None = None

    #: Whether ``reset`` and ``step`` wait for something outside of this process (the web, a server,
    #: a sandbox): then a rollout lets several such environments wait at once, each in a thread.
    blocks: bool = False

    def __init__(
        self,
        tasks: TaskSource,
        *,
        split: str = "train",
        budget: Budget | Mapping[str, Any] | None = None,
        render_mode: str | None = None,
    ) -> None:
        if split not in tasks.splits:
            raise TaskError(
                f"split: expected one of {', '.join(tasks.splits)} of {tasks.name!r}, got {split!r}"
            )
        if render_mode not in (None, *self.metadata["render_modes"]):
            modes = ", ".join(self.metadata["render_modes"])
            raise OVDError(f"render_mode: expected one of {modes} or nothing, got {render_mode!r}")
        self.tasks = tasks
        self.split = split
        self.budget = Budget.of(budget)
        self.render_mode = render_mode
        self.action_space = UnicodeText(self.budget.characters_per_turn or 1_000_000)
        self.observation_space = UnicodeText()
        self.training_step: int | None = None
        """Step of the training run that learns from this episode, if one does: see ``reset``."""
        self._task: Task | None = None
        self._done = False
        self._turn = 0
        self._characters = 0
        self._tokens = 0
        self._started = 0.0
        self._transcript: list[str] = []
        self._past: Past | None = None
        self._steps: list[tuple[str, str, float]] = []

    @property
    def task(self) -> Task:
        """The task of the running episode. Raises ``ResetNeeded`` before the first ``reset``."""
        if self._task is None:
            raise ResetNeeded("call reset before the task is asked for")
        return self._task

    @property
    def turn(self) -> int:
        """Number of messages of the acting model so far."""
        return self._turn

    @abstractmethod
    def observe(self, task: Task) -> str:
        """The first observation of an episode of ``task``. Prepare what the episode needs here."""

    @abstractmethod
    def respond(self, action: str) -> Reply:
        """The reply to ``action``, the newest message; ``self.task`` is the task at hand.

        Any text can come. Read the answer from ``action`` alone, never from an observation.
        """

    def gold_actions(self, task: Task, answer: str) -> Sequence[str]:
        """Messages that answer ``task`` with the gold ``answer``; what ``ovd check`` plays.

        None at all says that no way to this answer is known; it is then not played.
        """
        return (answer,)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Start an episode.

        ``options`` may hold "task" (a ``Task`` or the id of one) or "split" (draw from another
        split, this once); otherwise a task is drawn from the split by the generator that ``seed``
        sets. "training_step" says at which step of training the episode is learned from; only
        then may a part of the environment that is a model itself use the gold answer. Raises
        ``TaskError`` for an unknown option, split or task.
        """
        super().reset(seed=seed)
        options = options or {}
        for name in options:
            if name not in self.reset_options:
                known = ", ".join(self.reset_options)
                raise TaskError(f"reset: unknown option {name!r}, expected one of {known}")
        task = self._choose(options.get("task"), options.get("split", self.split))
        observation = self._start(task, options.get("training_step"))
        self._show(observation)
        return observation, self._info("", {})

    def _start(self, task: Task, training_step: int | None) -> str:
        """Begin an episode of ``task``: the first observation."""
        self.training_step, self._task = training_step, task
        self._done = True  # no episode runs where observe fails
        self._turn = self._characters = self._tokens = 0
        self._started = time.monotonic()
        random = self.np_random.bit_generator.state
        observation = self.observe(task)
        self._done = False
        self._transcript = [observation]
        self._past, self._steps = Past(task, training_step, random, observation), []
        return observation

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Take one message of the acting model.

        Raises ``ResetNeeded`` where no episode runs and ``TypeError`` where ``action`` is no text.
        """
        if self._task is None or self._done:
            raise ResetNeeded("no episode runs: call reset before step")
        if not isinstance(action, str):
            raise TypeError(f"action: expected str, got {type(action).__name__}")
        self._turn += 1
        try:
            reply = self.respond(action)
        except BaseException:
            self._done = True  # nobody knows how far it came
            raise
        used_up = self._used_up(action)
        terminated = reply.end is not None
        truncated = not terminated and used_up is not None
        self._done = terminated or truncated
        self._transcript += [f"> {action}", reply.observation]
        self._steps.append((action, reply.observation, float(reply.reward)))
        self._show(f"> {action}\n{reply.observation}")
        end = reply.end if terminated else (used_up or "")
        return (
            reply.observation,
            float(reply.reward),
            terminated,
            truncated,
            self._info(end or "", reply.info),
        )

    def save_state(self) -> Any:
        """What an episode changes in this environment beside what ``TextEnv`` itself keeps.

        For ``snapshot``, which makes a deep copy of it. An environment that does not write this
        and ``load_state`` raises ``NotImplementedError``: its episodes are then played again.
        """
        raise NotImplementedError

    def load_state(self, state: Any) -> None:
        """Take back what ``save_state`` gave (the very objects may be kept)."""
        raise NotImplementedError

    def snapshot(self) -> Snapshot:
        """The state of the episode; later steps do not change it.

        Raises ``SnapshotError`` before the first ``reset``. ``ovd_envs.snapshot`` keeps what
        Gymnasium's wrappers around an environment hold, too.
        """
        if self._past is None:
            raise SnapshotError("no episode has begun: call reset before snapshot")
        elapsed = time.monotonic() - self._started
        past = replace(self._past, steps=tuple(self._steps), elapsed=elapsed, ended=self._done)
        try:
            own = copy.deepcopy(self.save_state())
        except NotImplementedError:
            return Snapshot(type(self).__name__, past)
        fields = {name: copy.copy(getattr(self, name)) for name in _EPISODE}
        fields["random"] = self.np_random.bit_generator.state
        return Snapshot(type(self).__name__, past, fields, own)

    def restore(self, state: Snapshot) -> None:
        """Go on from ``state``, of this environment or of another one made with equal options.

        Where the environment has no ``save_state``, the task is begun again and the past messages
        are sent again; the observations and rewards must be the same. Raises ``SnapshotError``
        where they are not, naming the first turn that differs, and where the state is of another
        kind of environment. No episode runs after an error.
        """
        if state.env != type(self).__name__:
            raise SnapshotError(f"expected a state of {type(self).__name__}, got of {state.env}")
        self._done = True
        if state.fields is None:
            self._replay(state.past)
            return
        self._past, self._steps = replace(state.past, steps=()), list(state.past.steps)
        self.training_step, self._task = state.past.training_step, state.past.task
        self.load_state(copy.deepcopy(state.own))
        self._started = time.monotonic() - state.past.elapsed
        self.np_random.bit_generator.state = state.fields["random"]
        for name in _EPISODE:
            setattr(self, name, copy.copy(state.fields[name]))

    def _replay(self, past: Past) -> None:
        """Play ``past`` again, and check that it is the same."""
        self.np_random.bit_generator.state = past.random
        mode, self.render_mode = self.render_mode, None  # nobody is shown it twice
        try:
            got = self._start(past.task, past.training_step)
            self._started = math.inf  # what is played again takes none of the episode's time
            differs = None if got == past.observation else (0, past.observation, got)
            for number, (action, observation, reward) in enumerate(past.steps, start=1):
                if differs is not None:
                    break
                if self._done:
                    raise SnapshotError(f"replay: the episode ended before turn {number}")
                again, points, *_ = self.step(action)
                if (again, float(points)) != (observation, reward):
                    differs = number, f"{observation} ({reward:g})", f"{again} ({points:g})"
        finally:
            self.render_mode = mode
            self._started = time.monotonic() - past.elapsed
        if differs is not None:
            self._done = True
            number, wanted, came = differs
            raise SnapshotError(
                f"replay: the observation of turn {number} differs, expected "
                f"{_shortened(wanted)!r}, got {_shortened(came)!r}"
            )
        if self._done and past.ended is False:
            raise SnapshotError("replay: the episode ended, expected one that goes on")
        self._done = self._done or bool(past.ended)  # its time may have ended it

    def render(self) -> Any:
        """The episode so far as text for "ansi"; "human" is printed as it happens."""
        return "\n".join(self._transcript) if self.render_mode == "ansi" else None

    def _show(self, text: str) -> None:
        if self.render_mode == "human":
            print(text)

    def _choose(self, task: Task | str | None, split: str) -> Task:
        if isinstance(task, Task):
            return task
        if isinstance(task, str):
            return self.tasks.find(task)
        if task is not None:
            raise TaskError(f"reset: option 'task' is a Task or an id, got {type(task).__name__}")
        return self.tasks.draw(split, self.np_random)

    def _used_up(self, action: str) -> str | None:
        """The first budget, in the documented order, that this turn used up."""
        budget = self.budget
        self._characters += len(action)
        if budget.count_tokens is not None and budget.tokens is not None:
            self._tokens += budget.count_tokens(action)
        elapsed = time.monotonic() - self._started
        used_up = (
            budget.turns is not None and self._turn >= budget.turns,
            budget.characters_per_turn is not None and len(action) > budget.characters_per_turn,
            budget.characters is not None and self._characters > budget.characters,
            budget.tokens is not None and self._tokens > budget.tokens,
            budget.seconds is not None and elapsed > budget.seconds,
        )
        return next((end for end, over in zip(BUDGET_ENDS, used_up, strict=True) if over), None)

    def _info(self, end: str, extra: Mapping[str, Any]) -> dict[str, Any]:
        info = {"task": self.task.id, "turn": self._turn, "end_reason": end}
        for name in (*info, "answers"):
            if name in extra:
                raise ValueError(f"Reply.info: {name!r} is set by TextEnv, choose another name")
        # Copied: who keeps an info must not see it change.
        info.update(_copied(dict(extra)))
        if end:
            info["answers"] = list(self.task.answers)
        return info


#: What ``TextEnv`` keeps of an episode, beside its past, its clock and its random numbers.
_EPISODE = ("system", "_done", "_turn", "_characters", "_tokens", "_transcript")


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def _copied(value: Any) -> Any:
    """A deep copy; of plain JSON, which is what an info holds, in a quarter of the time."""
    kind = type(value)
    if kind is dict:
        return {name: _copied(part) for name, part in value.items()}
    if kind is list:
        return [_copied(part) for part in value]
    return value if kind in _FIXED else copy.deepcopy(value)


#: Types of plain JSON whose values cannot change.
_FIXED = frozenset({str, int, float, bool, type(None)})
