"""Evaluation: an agent alone on tasks it was never trained on, with the spread of every number."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agents.episode import Episode
from agents.protocol import Agent
from agents.rollout import Mode, Workers, rollout
from ovd_envs.errors import OVDError
from ovd_envs.statistics import mean_interval, paired_test, pass_at_k, wilson
from ovd_envs.task import Task


def is_correct(episode: Episode) -> bool:
    """Whether the environment gave the full reward of 1."""
    return episode.error is None and episode.reward >= 1


def evaluate(
    agent: Agent,
    env: str,
    tasks: Sequence[Task],
    *,
    samples: int = 1,
    seed: int = 0,
    env_options: Mapping[str, Any] | None = None,
    batch_size: int = 64,
    mode: Mode | None = None,
    workers: Workers = "threads",
    progress: Callable[[Episode], None] | None = None,
) -> tuple[dict[str, Any], list[Episode]]:
    """Run ``samples`` episodes of every task; the numbers as plain JSON, and the episodes.

    See ``summarize``, and ``agents.rollout`` for the options. Raises ``OVDError`` where there are
    no tasks.
    """
    if not tasks:
        raise OVDError("nothing to evaluate: expected at least one task")
    began = time.perf_counter()
    episodes = rollout(
        agent,
        env,
        tasks,
        group_size=samples,
        seed=seed,
        env_options=env_options,
        batch_size=batch_size,
        mode=mode,
        workers=workers,
        progress=progress,
    )
    seconds = time.perf_counter() - began
    return {**summarize(episodes), "seconds": round(seconds, 3)}, episodes


def summarize(episodes: Sequence[Episode]) -> dict[str, Any]:
    """Accuracy, reward and their 95 % intervals.

    ``accuracy`` is the share of tasks answered fully (reward 1), with Wilson's ``interval`` over
    ``n`` tasks where each was tried once; over the tasks' own shares where each was tried more
    often, for episodes of one task are not independent. ``pass_at_k`` is there then too.
    ``reward`` is the environment's own outcome (F1, exact match, ...). Episodes that ended in an
    error count as not answered and are counted in ``errors``.
    """
    by_task: dict[str, list[Episode]] = {}
    for episode in episodes:
        by_task.setdefault(episode.task.id, []).append(episode)
    n = len(by_task)
    samples = max(len(group) for group in by_task.values())
    shares = [sum(map(is_correct, group)) / len(group) for group in by_task.values()]
    rewards = [math.fsum(e.reward for e in group) / len(group) for group in by_task.values()]
    accuracy = math.fsum(shares) / n
    interval = wilson(round(accuracy * n), n) if samples == 1 else mean_interval(shares)
    low, high = max(interval[0], 0.0), min(interval[1], 1.0)
    result: dict[str, Any] = {
        "accuracy": accuracy,
        "interval": [low, high],
        "n": n,
        "samples": samples,
        "reward": math.fsum(rewards) / n,
        "reward_interval": list(mean_interval(rewards)),
        "errors": sum(episode.error is not None for episode in episodes),
        "tokens": sum(episode.num_sampled_tokens for episode in episodes),
    }
    if samples > 1:
        complete = [group for group in by_task.values() if len(group) == samples]
        result["pass_at_k"] = {
            str(k): math.fsum(pass_at_k(samples, sum(map(is_correct, g)), k) for g in complete)
            / len(complete)
            for k in sorted({1, samples} | {2**i for i in range(1, 10) if 2**i < samples})
        }
    return result


def compare(first: Sequence[Episode], second: Sequence[Episode]) -> dict[str, Any]:
    """``second`` against ``first``, paired by task: see ``paired_test``.

    Raises ``OVDError`` where they have no task in common, tried one more than once, or tried
    different ones under the same id, e.g. of a file that has changed.
    """
    asked = {episode.task.id: episode.task for episode in first}
    for episode in second:
        task = asked.get(episode.task.id, episode.task)
        if (task.question, task.answers) != (episode.task.question, episode.task.answers):
            raise OVDError(
                f"task {task.id!r} is another one in the two evaluations: {task.question!r:.60}, "
                f"{episode.task.question!r:.60}; expected the same tasks"
            )
    results: list[dict[str, bool]] = []
    for episodes in (first, second):
        found: dict[str, bool] = {}
        for episode in episodes:
            if episode.task.id in found:
                raise OVDError(f"task {episode.task.id!r} was tried more than once: expected once")
            found[episode.task.id] = is_correct(episode)
        results.append(found)
    common = [task for task in results[0] if task in results[1]]
    if not common:
        raise OVDError("the two evaluations have no task in common")
    before, after = ([found[task] for task in common] for found in results)
    return {"n": len(common), **paired_test(before, after)}
