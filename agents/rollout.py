"""Run an agent in an environment: groups of episodes, in lockstep or each for itself."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from agents.episode import Episode
from agents.free_rollout import Workers, check_workers, stream_episodes
from agents.lockstep import run_together
from agents.protocol import Agent
from agents.stepping import EnvFactory, Start
from ovd_envs.env import TextEnv
from ovd_envs.errors import OVDError
from ovd_envs.task import Task

Mode = Literal["lockstep", "free"]


def rollout(
    agent: Agent,
    env: str | EnvFactory,
    tasks: Sequence[Task],
    *,
    group_size: int = 1,
    seed: int = 0,
    step: int = 0,
    env_options: Mapping[str, Any] | None = None,
    batch_size: int = 64,
    training: bool = False,
    mode: Mode | None = None,
    workers: Workers = "threads",
    progress: Callable[[Episode], None] | None = None,
) -> list[Episode]:
    """Run ``group_size`` episodes of every task; return them task by task.

    ``env`` is a registered name (``env_options`` go to it) or a function that makes one. At most
    ``batch_size`` episodes run at a time; ``progress`` is called with each as it ends, so that a
    caller can save it before the rest are done. The random numbers of an episode come from
    (``seed``, ``step``, position of the task, index in the group) alone. ``training`` tells the
    environment that the episodes are learned from: see ``TextEnv.reset``.

    In ``mode`` "lockstep" all take a turn together: the same batches give the same bits; see
    ``run_together``. "free": each goes on as soon as its own reply or step is done, environments
    in threads; for slow environments and engines that sample as requests come. ``workers``
    "processes", or a number of them, takes processes for them. See ``stream_episodes``. Not said,
    it is "free" for an agent with ``submit`` or with processes, and "lockstep" for any other.

    An environment or an agent that raises ends its own episode ("error", the traceback kept); an
    ``OVDError`` (bad input, the same for all) and Ctrl-C go up.
    """
    if group_size < 1 or batch_size < 1:
        raise OVDError(
            f"group_size and batch_size: expected at least 1, got {group_size}, {batch_size}"
        )
    if seed < 0 or step < 0:
        raise OVDError(f"seed and step: expected at least 0, got {seed}, {step}")
    seeds = [(seed, step, p, i) for p in range(len(tasks)) for i in range(group_size)]
    return run_seeded(
        agent,
        env,
        [(tasks[position], (s, t, position, index)) for s, t, position, index in seeds],
        env_options=env_options,
        batch_size=batch_size,
        training=training,
        mode=mode,
        workers=workers,
        progress=progress,
    )


def check_mode(mode: object, workers: object) -> None:
    """Raise ``OVDError`` where ``rollout`` would: before a model is loaded, which takes long."""
    if mode not in (None, "lockstep", "free"):
        raise OVDError(f"mode: expected lockstep or free, got {mode!r}")
    check_workers(workers)
    if mode == "lockstep" and workers != "threads":
        raise OVDError(f"workers {workers!r}: expected mode free, got lockstep")


def run_seeded(
    agent: Agent,
    env: str | EnvFactory,
    requests: Sequence[Start],
    *,
    env_options: Mapping[str, Any] | None = None,
    batch_size: int = 64,
    training: bool = False,
    mode: Mode | None = None,
    workers: Workers = "threads",
    progress: Callable[[Episode], None] | None = None,
) -> list[Episode]:
    """One episode for each (task, seed), in order; what ``rollout`` is made of.

    A seed is (run seed, step, position of the task, index in the group): the first three name
    the group. A third part, from ``agents.kept_turns``, has the episode go on from these turns:
    they happen in its environment first. Where that does not give the same observations again,
    the episode ends in an error.
    """
    check_mode(mode, workers)
    if mode is None:
        mode = "free" if hasattr(agent, "submit") or workers != "threads" else "lockstep"
    if mode == "free":
        return _run_free(
            agent,
            env,
            requests,
            env_options=env_options,
            batch_size=batch_size,
            training=training,
            workers=workers,
            progress=progress,
        )
    return run_together(
        agent,
        env,
        requests,
        env_options=env_options,
        batch_size=batch_size,
        training=training,
        progress=progress,
    )


def _run_free(
    agent: Agent,
    env: str | EnvFactory,
    requests: Sequence[Start],
    *,
    env_options: Mapping[str, Any] | None,
    batch_size: int,
    training: bool,
    workers: Workers,
    progress: Callable[[Episode], None] | None,
) -> list[Episode]:
    done: dict[tuple[int, ...], list[Episode]] = {}
    stream = stream_episodes(
        agent,
        env,
        requests,
        env_options=env_options,
        batch_size=batch_size,
        training=training,
        workers=workers,
    )
    with contextlib.closing(stream):
        for episode in stream:
            done.setdefault(episode.seed, []).append(episode)
            if progress is not None:
                progress(episode)
    return [done[request[1]].pop(0) for request in requests]


__all__ = [
    "EnvFactory",
    "Mode",
    "Start",
    "TextEnv",
    "Workers",
    "rollout",
    "run_seeded",
    "stream_episodes",
]
