"""Run an agent in an environment: groups of episodes, in lockstep, turn by turn."""

from __future__ import annotations

import contextlib
import json
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium

from agents.episode import Episode, Turn
from agents.protocol import Act, Agent
from ovd_envs.env import TextEnv
from ovd_envs.errors import OVDError
from ovd_envs.registry import make
from ovd_envs.task import Task

EnvFactory = Callable[[], gymnasium.Env[str, str]]


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
    progress: Callable[[Episode], None] | None = None,
) -> list[Episode]:
    """Run ``group_size`` episodes of every task; return them task by task.

    ``env`` is a registered name (``env_options`` go to it) or a function that makes one. At most
    ``batch_size`` episodes run at a time; ``progress`` is called with each as it ends, so that a
    caller can save it before the rest are done. The random numbers of an episode come from
    (``seed``, ``step``, position of the task, index in the group) alone. ``training`` tells the
    environment that the episodes are learned from: see ``TextEnv.reset``.

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
        progress=progress,
    )


def run_seeded(
    agent: Agent,
    env: str | EnvFactory,
    requests: Sequence[tuple[Task, tuple[int, ...]]],
    *,
    env_options: Mapping[str, Any] | None = None,
    batch_size: int = 64,
    training: bool = False,
    progress: Callable[[Episode], None] | None = None,
) -> list[Episode]:
    """One episode for each (task, seed), in order; what ``rollout`` is made of.

    A seed is (run seed, step, position of the task, index in the group): the first three name
    the group.
    """
    factory = env if callable(env) else lambda: make(env, **dict(env_options or {}))
    name = env if isinstance(env, str) else getattr(env, "__name__", type(env).__name__)
    worlds: list[gymnasium.Env[str, str]] = []
    episodes: list[Episode] = []
    try:
        for start in range(0, len(requests), batch_size):
            batch = [
                Episode(
                    task=task,
                    env=name,
                    agent=agent.name,
                    group="-".join(map(str, key[1:-1])) or "0",
                    index=key[-1],
                    seed=key,
                )
                for task, key in requests[start : start + batch_size]
            ]
            while len(worlds) < len(batch):
                worlds.append(factory())
            _run_batch(agent, worlds[: len(batch)], batch, progress, training=training)
            episodes += batch
            for place, episode in enumerate(batch):
                if episode.error is not None and start + batch_size < len(requests):
                    # What raised may be broken for good: the next episode gets a new one.
                    _close(worlds[place])
                    worlds[place] = factory()
    finally:
        for world in worlds:
            _close(world)
    return episodes


def _close(world: gymnasium.Env[str, str]) -> None:
    # The episodes are worth more than a tidy end.
    with contextlib.suppress(Exception):
        world.close()


def _run_batch(
    agent: Agent,
    worlds: Sequence[gymnasium.Env[str, str]],
    episodes: Sequence[Episode],
    progress: Callable[[Episode], None] | None,
    *,
    training: bool,
) -> None:
    """Step the episodes together until all have ended."""
    for world, episode in zip(worlds, episodes, strict=True):
        _reset(world, episode, training=training)
    running = list(zip(worlds, episodes, strict=True))
    while True:
        over = [episode for _, episode in running if episode.done]
        running = [(world, episode) for world, episode in running if not episode.done]
        _finish(agent, over, progress)
        if not running:
            return
        began = time.perf_counter()
        acts = _act(agent, [episode for _, episode in running])
        share = (time.perf_counter() - began) / len(running)
        for (world, episode), act in zip(running, acts, strict=True):
            if isinstance(act, str):
                _fail(episode, act)
            elif act.stop == "context_limit":
                _end(episode, "context_limit", truncated=True)
            else:
                _step(world, episode, act, share)


def _act(agent: Agent, episodes: Sequence[Episode]) -> list[Act | str]:
    """The agent's messages; where it raises on several, each alone, a traceback where it fails."""
    lengths = [[len(s.ids) for s in episode.segments] for episode in episodes]
    try:
        acts: list[Act | str] = list(agent.act(episodes))
        if len(acts) != len(episodes):
            raise ValueError(
                f"agent {agent.name!r} gave {len(acts)} acts for {len(episodes)} episodes"
            )
        for act in acts:
            if not isinstance(act, Act):
                raise TypeError(f"agent {agent.name!r}: expected an Act, got {type(act).__name__}")
        return acts
    except OVDError:
        raise
    except Exception:  # noqa: BLE001 - somebody's agent can fail in any way
        if len(episodes) == 1:
            return [traceback.format_exc()]
    for episode, counts in zip(episodes, lengths, strict=True):
        # Undo the tokens of the failed call: each episode is asked for again.
        del episode.segments[len(counts) :]
        for segment, count in zip(episode.segments, counts, strict=True):
            del segment.ids[count:], segment.mask[count:], segment.logprobs[count:]
    return [act for episode in episodes for act in _act(agent, [episode])]


def _reset(world: gymnasium.Env[str, str], episode: Episode, *, training: bool) -> None:
    episode.started = time.time()
    options: dict[str, Any] = {"task": episode.task}
    if training and "training_step" in getattr(world.unwrapped, "reset_options", ()):
        options["training_step"] = episode.seed[1]
    try:
        # Gymnasium seeds are one number; the four of an episode are mixed into it.
        seed = hash(episode.seed) & 0x7FFFFFFF
        episode.observation, _ = world.reset(seed=seed, options=options)
    except OVDError:
        raise
    except Exception:  # noqa: BLE001 - somebody's environment can fail in any way
        _fail(episode, traceback.format_exc())


def _step(world: gymnasium.Env[str, str], episode: Episode, act: Act, seconds: float) -> None:
    turn = Turn(act.text, stop=act.stop, version=act.version, agent_seconds=seconds)
    episode.turns.append(turn)
    began = time.perf_counter()
    try:
        observation, reward, terminated, truncated, info = world.step(act.text)
        turn.observation, turn.reward = observation, float(reward)
        if terminated or truncated:
            ending = {k: v for k, v in info.items() if k not in ("answers", "task")}
            episode.info = json.loads(json.dumps(ending, default=_plain))
    except OVDError:
        raise
    except Exception:  # noqa: BLE001 - somebody's environment can fail in any way
        _fail(episode, traceback.format_exc())
        return
    finally:
        turn.env_seconds = time.perf_counter() - began
    episode.reward += turn.reward
    if terminated or truncated:
        reason = str(info.get("end_reason") or ("terminated" if terminated else "truncated"))
        _end(episode, reason, terminated=bool(terminated), truncated=bool(truncated))


def _plain(value: Any) -> Any:
    """JSON of what an environment put into ``info`` against its contract (numpy, mostly)."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _end(
    episode: Episode, reason: str, *, terminated: bool = False, truncated: bool = False
) -> None:
    episode.end_reason, episode.terminated, episode.truncated = reason, terminated, truncated
    episode.seconds = time.time() - episode.started


def _fail(episode: Episode, trace: str) -> None:
    episode.error = trace
    _end(episode, "error", truncated=True)


def _finish(
    agent: Agent, over: Sequence[Episode], progress: Callable[[Episode], None] | None
) -> None:
    finish = getattr(agent, "finish", None)
    if over and finish is not None:
        finish(over)
    for episode in over if progress else ():
        assert progress is not None
        progress(episode)


__all__ = ["EnvFactory", "TextEnv", "rollout", "run_seeded"]
