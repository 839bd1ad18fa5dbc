"""The parts of an episode's life: it begins, takes a step, ends, or fails.

An environment that raises ends its own episode; an ``OVDError`` goes up, for it is bad input, the
same for all.
"""

from __future__ import annotations

import contextlib
import json
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import gymnasium

from agents.episode import Episode, Turn
from agents.protocol import Act, Agent
from ovd_envs.errors import OVDError
from ovd_envs.past import SnapshotError
from ovd_envs.registry import make
from ovd_envs.state import recorded, restore
from ovd_envs.task import Task

#: What an episode begins with: its task and its seed, and where it goes on from another's turns
#: (``agents.kept_turns``), these.
Start = tuple[Task, tuple[int, ...]] | tuple[Task, tuple[int, ...], Episode]

EnvFactory = Callable[[], gymnasium.Env[str, str]]


def env_factory(
    env: str | EnvFactory, options: Mapping[str, Any] | None = None
) -> tuple[EnvFactory, str]:
    """(what makes a world, its name), of a registered name or of a function that makes one."""
    if isinstance(env, str):
        return partial(make, env, **dict(options or {})), env
    return env, getattr(env, "__name__", type(env).__name__)


def new_episode(start: Start, *, env: str, agent: str) -> Episode:
    """An episode that has not begun. A seed is (run, step, task, index in the group)."""
    task, seed = start[0], start[1]
    group = "-".join(map(str, seed[1:-1])) or "0"
    episode = Episode(task=task, env=env, agent=agent, group=group, index=seed[-1], seed=seed)
    if len(start) == 3:
        episode.start = start[2]
    return episode


def begin(world: gymnasium.Env[str, str], episode: Episode, *, training: bool) -> None:
    """Reset ``world`` to the episode's task: its first observation.

    Where the episode goes on from another's turns, these happen in it first.
    """
    episode.started = time.time()
    start = episode.start
    seed = (start or episode).seed
    options: dict[str, Any] = {"task": episode.task}
    if training and "training_step" in getattr(world.unwrapped, "reset_options", ()):
        options["training_step"] = seed[1]
    try:
        # Gymnasium seeds are one number; the four of an episode are mixed into it.
        number = hash(seed) & 0x7FFFFFFF
        if start is None:
            episode.observation, _ = world.reset(seed=number, options=options)
        else:
            _go_on_from(start, world, episode, number, options.get("training_step"))
        episode.system = getattr(world.unwrapped, "system", None)
        episode.stop_strings = tuple(getattr(world.unwrapped, "stop_strings", ()))
    except SnapshotError:  # of this episode alone: the world is not the same twice
        fail(episode, traceback.format_exc())
    except OVDError:
        raise
    except Exception:  # noqa: BLE001 - somebody's environment can fail in any way
        fail(episode, traceback.format_exc())


def _go_on_from(
    start: Episode,
    world: gymnasium.Env[str, str],
    episode: Episode,
    seed: int,
    training_step: int | None,
) -> None:
    """Bring ``world`` and ``episode`` to where ``start`` ends."""
    episode.observation = start.observation
    episode.turns = [replace(turn) for turn in start.turns]
    episode.reward = start.reward
    episode.kept, episode.begun_by = len(start.turns), start.agent
    state = recorded(
        type(world.unwrapped).__name__,
        episode.task,
        seed,
        start.observation,
        [(turn.action, turn.observation, turn.reward) for turn in start.turns],
        training_step=training_step,
    )
    restore(world, state)


def step(world: gymnasium.Env[str, str], episode: Episode, act: Act, seconds: float) -> None:
    """Let ``act``, which took the agent ``seconds``, happen in the episode's world."""
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
        fail(episode, traceback.format_exc())
        return
    finally:
        turn.env_seconds = time.perf_counter() - began
    episode.reward += turn.reward
    if terminated or truncated:
        reason = str(info.get("end_reason") or ("terminated" if terminated else "truncated"))
        end(episode, reason, terminated=bool(terminated), truncated=bool(truncated))


def _plain(value: Any) -> Any:
    """JSON of what an environment put into ``info`` against its contract (numpy, mostly)."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def end(
    episode: Episode, reason: str, *, terminated: bool = False, truncated: bool = False
) -> None:
    """The episode is over."""
    episode.end_reason, episode.terminated, episode.truncated = reason, terminated, truncated
    episode.seconds = time.time() - episode.started


def fail(episode: Episode, trace: str) -> None:
    """The episode ends in an error, whose traceback is kept."""
    episode.error = trace
    end(episode, "error", truncated=True)


def finish(
    agent: Agent, over: Sequence[Episode], progress: Callable[[Episode], None] | None
) -> None:
    """Tell the agent, and who wants to know, of episodes that have ended."""
    finish = getattr(agent, "finish", None)
    if over and finish is not None:
        finish(over)
    for episode in over if progress else ():
        assert progress is not None
        progress(episode)


def checked(agent: Agent, act: object) -> Act:
    """``act``, which is one. Raises ``TypeError`` where it is something else."""
    if not isinstance(act, Act):
        raise TypeError(f"agent {agent.name!r}: expected an Act, got {type(act).__name__}")
    return act


def ask(agent: Agent, episodes: Sequence[Episode]) -> list[Act | str]:
    """The agent's messages; where it raises on several, each alone, a traceback where it fails."""
    lengths = [[len(s.ids) for s in episode.segments] for episode in episodes]
    try:
        acts = list(agent.act(episodes))
        if len(acts) != len(episodes):
            raise ValueError(
                f"agent {agent.name!r} gave {len(acts)} acts for {len(episodes)} episodes"
            )
        return [checked(agent, act) for act in acts]
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
    return [act for episode in episodes for act in ask(agent, [episode])]


def close(world: gymnasium.Env[str, str]) -> None:
    """Close a world, whatever it says to that."""
    # The episodes are worth more than a tidy end.
    with contextlib.suppress(Exception):
        world.close()
