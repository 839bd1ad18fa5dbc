"""Episodes that take their turns together: the same batches give the same bits."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import gymnasium

from agents.episode import Episode
from agents.protocol import NO_MESSAGE, Act, Agent
from agents.stepping import (
    EnvFactory,
    Start,
    ask,
    begin,
    close,
    end,
    env_factory,
    fail,
    finish,
    new_episode,
    step,
)

World = gymnasium.Env[str, str]

#: Most environments that wait for something at once.
_AT_ONCE = 64


def run_together(
    agent: Agent,
    env: str | EnvFactory,
    requests: Sequence[Start],
    *,
    env_options: Mapping[str, Any] | None,
    batch_size: int,
    training: bool,
    progress: Callable[[Episode], None] | None,
) -> list[Episode]:
    """One episode for each (task, seed), in order, a batch of them after the other.

    The agent acts in this thread. Environments are reset and stepped in it too, one after the
    other, save those that say that they block (``TextEnv.blocks``): these wait in threads, all of
    a turn at once. What happens to each is the same; Ctrl-C waits for their steps under way.
    """
    factory, name = env_factory(env, env_options)
    worlds: list[World] = []
    episodes: list[Episode] = []
    # Its threads start when they are needed.
    pool = ThreadPoolExecutor(min(batch_size, _AT_ONCE), thread_name_prefix="environment")
    try:
        for start in range(0, len(requests), batch_size):
            batch = [
                new_episode(request, env=name, agent=agent.name)
                for request in requests[start : start + batch_size]
            ]
            while len(worlds) < len(batch):
                worlds.append(factory())
            running = list(zip(worlds, batch, strict=False))
            _run_batch(agent, running, pool, progress, training=training)
            episodes += batch
            for place, episode in enumerate(batch):
                if episode.error is not None and start + batch_size < len(requests):
                    # What raised may be broken for good: the next episode gets a new one.
                    close(worlds[place])
                    worlds[place] = factory()
    finally:
        pool.shutdown(cancel_futures=True)
        for world in worlds:
            close(world)
    return episodes


def _run_batch(
    agent: Agent,
    running: Sequence[tuple[World, Episode]],
    pool: ThreadPoolExecutor,
    progress: Callable[[Episode], None] | None,
    *,
    training: bool,
) -> None:
    """Step the episodes together until all have ended."""
    _do_each(
        pool,
        [(world, partial(begin, world, episode, training=training)) for world, episode in running],
    )
    while True:
        over = [episode for _, episode in running if episode.done]
        running = [(world, episode) for world, episode in running if not episode.done]
        finish(agent, over, progress)
        if not running:
            return
        began = time.perf_counter()
        acts = ask(agent, [episode for _, episode in running])
        share = (time.perf_counter() - began) / len(running)
        _do_each(
            pool,
            [
                (world, partial(_take, world, episode, act, share))
                for (world, episode), act in zip(running, acts, strict=True)
            ],
        )


def _take(world: World, episode: Episode, act: Act | str, seconds: float) -> None:
    """Let the agent's act happen; a text is the traceback of one that failed."""
    if isinstance(act, str):
        fail(episode, act)
    elif act.stop in NO_MESSAGE:
        end(episode, act.stop, truncated=True)
    else:
        step(world, episode, act, seconds)


def _do_each(pool: ThreadPoolExecutor, work: Sequence[tuple[World, Callable[[], None]]]) -> None:
    """Do what is to be done in each world; what raises goes up.

    A thread costs more than an instant step (benchmarks/rollouts.py), so only worlds that block get
    one.
    """
    waiting = [
        pool.submit(do) if len(work) > 1 and getattr(world.unwrapped, "blocks", False) else do()
        for world, do in work
    ]
    for future in waiting:
        if future is not None:
            future.result()
