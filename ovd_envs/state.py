"""A running episode's state in its environment: taken, and put into another environment."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import gymnasium
from gymnasium.utils import seeding

from ovd_envs.env import TextEnv
from ovd_envs.past import Past, Snapshot, SnapshotError
from ovd_envs.task import Task


def snapshot(env: gymnasium.Env[str, str]) -> Snapshot:
    """The state of ``env``, its wrappers' included.

    Raises ``SnapshotError`` where it is no ``TextEnv``, where no episode has begun, or where a
    wrapper holds what cannot be copied.
    """
    wrappers = []
    for wrapper in _wrappers(env):
        kept = {name: value for name, value in vars(wrapper).items() if name != "env"}
        try:
            wrappers.append((type(wrapper).__name__, copy.deepcopy(kept)))
        except Exception as error:
            raise SnapshotError(
                f"wrapper {type(wrapper).__name__}: its state cannot be copied ({error})"
            ) from error
    taken = _text_env(env).snapshot()
    return Snapshot(taken.env, taken.past, taken.fields, taken.own, tuple(wrappers))


def restore(env: gymnasium.Env[str, str], state: Snapshot) -> None:
    """Put ``env``, and its wrappers, into ``state``.

    Raises ``SnapshotError`` where ``env`` is another kind of environment than the state's or in
    other wrappers, or where a replay goes another way; no episode runs then.
    """
    wrappers = _wrappers(env)
    # A state that knows of no wrappers is of the bare environment, or of a recorded episode.
    names = [type(wrapper).__name__ for wrapper in wrappers]
    kept = [name for name, _ in state.wrappers]
    if kept and names != kept:
        raise SnapshotError(f"expected an environment in {', '.join(kept)}, got {names}")
    _text_env(env).restore(state)
    for wrapper, (_, values) in zip(wrappers, state.wrappers, strict=False):
        vars(wrapper).update(copy.deepcopy(dict(values)))


def recorded(
    env: str,
    task: Task,
    seed: int,
    observation: str,
    steps: Sequence[tuple[str, str, float]],
    *,
    training_step: int | None = None,
) -> Snapshot:
    """The state after ``steps`` (message, observation, reward) of an episode that was recorded.

    ``seed`` and ``training_step`` are those of its ``reset``, ``observation`` is the first one.
    ``env`` is the class of the environment. Restoring it plays the steps again.
    """
    random = seeding.np_random(seed)[0].bit_generator.state
    return Snapshot(env, Past(task, training_step, random, observation, tuple(steps)))


def _wrappers(env: gymnasium.Env[str, str]) -> Sequence[gymnasium.Env[str, str]]:
    found: list[gymnasium.Env[str, str]] = []
    while isinstance(env, gymnasium.Wrapper):
        found.append(env)
        env = env.env
    return found


def _text_env(env: gymnasium.Env[str, str]) -> TextEnv:
    if not isinstance(env.unwrapped, TextEnv):
        raise SnapshotError(f"expected a TextEnv, got {type(env.unwrapped).__name__}")
    return env.unwrapped
