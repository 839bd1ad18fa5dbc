"""Several text environments stepped together, for Gymnasium: nothing is lost at the end of one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

from ovd_envs.errors import OVDError, TaskError
from ovd_envs.registry import make

#: Names under which the end of an episode stands in ``infos`` where the next one has begun.
FINAL = ("final_obs", "final_info")


class _Step(NamedTuple):
    observation: str
    reward: float
    terminated: bool
    truncated: bool
    info: dict[str, Any]


class TextVectorEnv(SyncVectorEnv[tuple[str, ...], Sequence[str]]):
    """Text environments side by side: a real ``gymnasium.vector.VectorEnv``.

    Observations are a tuple of ``str``, actions a sequence of ``str``, rewards (float64),
    terminations and truncations arrays, all of length ``num_envs``; ``infos`` is as Gymnasium has
    it, see ``batch_infos``. What happens after the end of an episode, ``autoreset_mode`` says
    (``metadata["autoreset_mode"]`` for those who are given the environment):

    - "NextStep": ``step`` returns the last observation and info; the step after it resets that
      environment: it takes no notice of its action and returns the first observation, reward 0.
    - "SameStep": ``step`` resets at once and returns the first observation; the last observation
      is in ``infos["final_obs"]``, the last info in ``infos["final_info"]``.
    - "Disabled": ``step`` returns the last observation and info; the environments that have ended
      must be reset, ``reset(options={"reset_mask": array of bool})``, before the next step.

    An environment that raises lets the exception through, as Gymnasium does, and the message says
    which it was. The others may or may not have taken their step then, so all must be reset.

    Args:
        env_fns: makes one environment each.
        autoreset_mode: Gymnasium's ``AutoresetMode`` or its value.

    Raises:
        OVDError: for an unknown mode, no environment, or one and the same twice.
    """

    def __init__(
        self,
        env_fns: Iterable[Callable[[], gymnasium.Env[str, str]]],
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    ) -> None:
        try:
            mode = AutoresetMode(autoreset_mode)
        except ValueError as error:
            known = ", ".join(mode.value for mode in AutoresetMode)
            raise OVDError(
                f"autoreset_mode: expected one of {known}, got {autoreset_mode!r}"
            ) from error
        made: list[gymnasium.Env[str, str]] = []
        try:
            for number, make_env in enumerate(env_fns):
                with _named(number):
                    made.append(make_env())
            _check_different(made)
            super().__init__([partial(_itself, env) for env in made], autoreset_mode=mode)
        except BaseException:
            for env in made:
                with contextlib.suppress(Exception):  # the first fault is the one to tell
                    env.close()
            raise
        self._last: list[str | None] = [None] * self.num_envs
        self._ended = np.zeros(self.num_envs, dtype=np.bool_)
        #: Environments of which it is not known where they are: never reset, or a call failed.
        self._adrift = np.ones(self.num_envs, dtype=np.bool_)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> tuple[tuple[str, ...], dict[str, Any]]:
        """Start an episode in every environment.

        ``seed`` is a number (environment i gets ``seed + i``), or one or ``None`` for each.
        ``options`` may hold "tasks" (for each environment a ``Task``, the id of one, or ``None``
        to draw) and "reset_mask" (an array of bool: only these are reset; of the others the
        newest observation is returned, no info, and their seeds and tasks are not looked at); the
        rest goes to each environment.

        Raises ``ValueError`` and ``TypeError`` where Gymnasium does, ``TaskError`` for bad tasks,
        ``ResetNeeded`` for a mask before the first whole reset, ``ClosedEnvironmentError``.
        """
        self._check_open()
        rest = dict(options or {})
        seeds = self._seeds(seed)
        tasks = self._tasks(rest)
        chosen = self._mask(rest.pop("reset_mask", None))
        infos: list[dict[str, Any] | None] = [None] * self.num_envs
        self._adrift |= chosen
        for number in np.flatnonzero(chosen):
            own = rest if tasks[number] is None else {**rest, "task": tasks[number]}
            with _named(number):
                self._last[number], infos[number] = self.envs[number].reset(
                    seed=seeds[number], options=own or None
                )
        self._adrift &= ~chosen
        self._ended &= ~chosen
        return self._newest(), batch_infos(infos)

    def step(
        self, actions: Sequence[str]
    ) -> tuple[
        tuple[str, ...],
        NDArray[np.float64],
        NDArray[np.bool_],
        NDArray[np.bool_],
        dict[str, Any],
    ]:
        """Take one message in every environment.

        Raises ``ResetNeeded`` naming the environments that must be reset first, ``ValueError`` for
        a wrong number of actions, ``TypeError`` for one that is no text,
        ``ClosedEnvironmentError``; then no environment has taken a step.
        """
        self._check_open()
        self._check_step(actions)
        self._adrift[:] = True  # until all have taken theirs
        steps = [self._step(number, action) for number, action in enumerate(actions)]
        infos = batch_infos([step.info for step in steps])
        terminations = np.array([step.terminated for step in steps], dtype=np.bool_)
        truncations = np.array([step.truncated for step in steps], dtype=np.bool_)
        self._last = [step.observation for step in steps]
        if self.autoreset_mode is not AutoresetMode.SAME_STEP:
            self._ended = terminations | truncations
        self._adrift[:] = False
        rewards = np.array([step.reward for step in steps], dtype=np.float64)
        return self._newest(), rewards, terminations, truncations, infos

    def close_extras(self, **kwargs: Any) -> None:
        """Close every environment, then raise what some of them raised."""
        self.closed = True
        errors: list[Exception] = []
        for number, env in enumerate(self.envs):
            try:
                with _named(number):
                    env.close()
            except Exception as error:  # noqa: BLE001 - raised below, when all are closed
                errors.append(error)
        if len(errors) > 1:
            raise ExceptionGroup("closing the environments", errors)
        if errors:
            raise errors[0]

    def _step(self, number: int, action: str) -> _Step:
        """What one environment does in a step of all of them."""
        env = self.envs[number]
        with _named(number):
            if self._ended[number]:  # in the mode "Disabled" it has been refused before
                observation, info = env.reset()
                return _Step(observation, 0.0, False, False, info)
            step = _Step._make(env.step(action))
            if self.autoreset_mode is AutoresetMode.SAME_STEP and (
                step.terminated or step.truncated
            ):
                observation, info = env.reset()
                taken = [name for name in FINAL if name in info]
                if taken:
                    raise ValueError(f"info: {taken[0]!r} is what the mode SameStep sets itself")
                final = dict(zip(FINAL, (step.observation, step.info), strict=True))
                step = step._replace(observation=observation, info={**info, **final})
            return step

    def _newest(self) -> tuple[str, ...]:
        return tuple(text for text in self._last if text is not None)

    def _check_open(self) -> None:
        if self.closed:
            raise ClosedEnvironmentError("the vector environment is closed")

    def _check_step(self, actions: Sequence[Any]) -> None:
        """Raise for what would stop a step in the middle."""
        disabled = self.autoreset_mode is AutoresetMode.DISABLED
        waiting = np.flatnonzero(self._adrift | self._ended if disabled else self._adrift)
        if len(waiting):
            raise ResetNeeded(
                f"environments {', '.join(map(str, waiting))}: no episode runs, call reset "
                '(of some only: options={"reset_mask": array of bool})'
            )
        if isinstance(actions, str):
            raise TypeError(f"actions: expected a text for each environment, got {actions!r:.60}")
        if len(actions) != self.num_envs:
            raise ValueError(
                f"actions: expected one for each of {self.num_envs}, got {len(actions)}"
            )
        for number, action in enumerate(actions):
            if not isinstance(action, str) and not self._ended[number]:
                raise TypeError(f"action {number}: expected str, got {type(action).__name__}")

    def _seeds(self, seed: int | Sequence[int | None] | None) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, (int, np.integer)):
            return [int(seed) + number for number in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ValueError(f"seed: expected one for each of {self.num_envs}, got {len(seed)}")
        return list(seed)

    def _tasks(self, options: dict[str, Any]) -> list[Any]:
        """A task or ``None`` for each environment, taken out of ``options``."""
        if "tasks" not in options:
            return [None] * self.num_envs
        tasks = options.pop("tasks")
        if "task" in options:
            raise TaskError("reset: expected one of the options 'task' and 'tasks', got both")
        if isinstance(tasks, str) or not isinstance(tasks, Sequence):
            raise TaskError(f"reset: option 'tasks' is a list, got {type(tasks).__name__}")
        if len(tasks) != self.num_envs:
            raise TaskError(
                f"reset: option 'tasks' holds one for each of {self.num_envs}, got {len(tasks)}"
            )
        return list(tasks)

    def _mask(self, mask: Any) -> NDArray[np.bool_]:
        """Which environments are to be reset; all where no mask is given."""
        if mask is None:
            return np.ones(self.num_envs, dtype=np.bool_)
        chosen: NDArray[np.bool_] = np.asarray(mask)
        if chosen.dtype != np.bool_:
            raise TypeError(f"reset_mask: expected an array of bool, got one of {chosen.dtype}")
        if chosen.shape != (self.num_envs,) or not chosen.any():
            raise ValueError(
                f"reset_mask: expected {self.num_envs} bools, at least one of them true, got {mask}"
            )
        if any(text is None for text, reset in zip(self._last, chosen, strict=True) if not reset):
            raise ResetNeeded("reset_mask: the first reset must be one of all environments")
        return chosen


def make_vec(
    name: str,
    num_envs: int = 1,
    *,
    autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    **options: Any,
) -> TextVectorEnv:
    """``num_envs`` environments ``name`` with the same ``options``, stepped together.

    ``gymnasium.make_vec`` makes the same of any registered name. Raises as ``make`` and
    ``TextVectorEnv`` do.
    """
    if type(num_envs) is not int or num_envs < 1:
        raise OVDError(f"num_envs: expected a whole number of at least 1, got {num_envs!r}")
    envs = TextVectorEnv([partial(make, name, **options)] * num_envs, autoreset_mode=autoreset_mode)
    single = envs.envs[0].spec
    if single is not None:
        vector = {
            "num_envs": num_envs,
            "vectorization_mode": "vector_entry_point",
            "autoreset_mode": envs.autoreset_mode.value,
        }
        envs.spec = replace(single, kwargs={**single.kwargs, **vector})
    return envs


def batch_infos(infos: Sequence[Mapping[str, Any] | None]) -> dict[str, Any]:
    """The infos of several environments (``None``: it has none) in Gymnasium's form.

    For every name an array with a value for each environment, and under "_name" an array of bool
    that tells which of them have one. Numbers of one type are an array of it, arrays of one shape
    and type are stacked, dictionaries are treated likewise, name by name; everything else is an
    array of objects. Gymnasium's own function takes the type from the first environment, and so
    makes 0.5 a 0 after another's 1.

    Raises ``ValueError`` where a name cannot be told from the mask of another.
    """
    batched: dict[str, Any] = {}
    names = dict.fromkeys(name for info in infos if info is not None for name in info)
    for name in names:
        if f"_{name}" in names:
            raise ValueError(f"info: '_{name}' would hide which environments have {name!r}")
        values = {i: info[name] for i, info in enumerate(infos) if info and name in info}
        has = np.zeros(len(infos), dtype=np.bool_)
        has[list(values)] = True
        batched[name], batched[f"_{name}"] = _column(values, len(infos)), has
    return batched


def _column(values: Mapping[int, Any], size: int) -> Any:
    """The values of one name, by the number of their environment."""
    kinds = {type(value) for value in values.values()}
    column = np.full(size, None, dtype=object)
    if kinds == {dict}:
        if all(isinstance(k, str) and k[:1] != "_" for value in values.values() for k in value):
            return batch_infos([values.get(number) for number in range(size)])
    elif len(kinds) == 1:
        kind = kinds.pop()
        if kind in (int, float, bool) or issubclass(kind, np.number):
            column = np.zeros(size, dtype=kind)
        elif kind is np.ndarray and len({(v.shape, v.dtype) for v in values.values()}) == 1:
            first = next(iter(values.values()))
            column = np.zeros((size, *first.shape), dtype=first.dtype)
    try:
        for number, value in values.items():
            column[number] = value
    except OverflowError:  # more digits than a number of numpy has
        column = np.full(size, None, dtype=object)
        for number, value in values.items():
            column[number] = value
    return column


@contextlib.contextmanager
def _named(number: int) -> Iterator[None]:
    """Say of an exception which environment it comes from."""
    try:
        yield
    except Exception as error:
        if error.args and error.args[0] == str(error):
            error.args = (f"environment {number}: {error}", *error.args[1:])
        else:  # its text is not a mere message
            error.add_note(f"environment {number}")
        raise


def _check_different(envs: Sequence[gymnasium.Env[str, str]]) -> None:
    """Raise where two are the same, or there is none."""
    if not envs:
        raise OVDError("env_fns: expected at least one environment, got none")
    first: dict[int, int] = {}
    for number, env in enumerate(envs):
        same = first.setdefault(id(env.unwrapped), number)
        if same != number:
            raise OVDError(
                f"env_fns: expected a new environment from each, number {number} is number {same}"
            )


def _itself(env: gymnasium.Env[str, str]) -> gymnasium.Env[str, str]:
    return env
