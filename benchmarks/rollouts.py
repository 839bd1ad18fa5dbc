"""Many slow episodes at a time: how near to the ideal, and in how much memory.

    python benchmarks/rollouts.py

A scripted agent, environments that sleep at each step as a web page would make them wait.

"threads": all places wait at once; the ideal is episodes x turns x latency / places. "processes": a
twentieth of the episodes, a fifth of the latency; each process steps one environment at a time, so
the ideal is episodes x turns x latency / processes. The seconds include the start. "lockstep": a
turn of as many environments as there are places, such as wait (in threads, 64 at once) and such as
are instant, stepped in this thread and in threads. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from agents.episode import Episode
from agents.free_rollout import Workers, stream_episodes
from agents.protocol import Act
from agents.rollout import rollout
from ovd_envs.env import Reply, TextEnv
from ovd_envs.task import ListTasks, Task

TASKS = ListTasks("slow", train=[Task("slow/0", "Wait.", ("done",))])


class Slow(TextEnv):
    """Answers ``turns`` messages, each after ``latency`` seconds."""

    def __init__(self, turns: int, latency: float) -> None:
        super().__init__(TASKS, budget={"turns": turns + 1})
        self.length, self.latency = turns, latency

    def observe(self, task: Task) -> str:
        """The same for all."""
        return task.question

    def respond(self, action: str) -> Reply:
        """After a while."""
        if self.latency:
            time.sleep(self.latency)
        return Reply("And?", end="done" if self.turn >= self.length else None)


class Waiting(Slow):
    """The same, and says so."""

    blocks = True


class Script:
    """Says the same thing at every turn."""

    name = "script"

    def act(self, episodes: Sequence[Episode]) -> list[Act]:
        """At once."""
        return [Act("go on") for _ in episodes]


def measure(
    workers: Workers, episodes: int, turns: int, latency: float, places: int
) -> dict[str, Any]:
    """Run them all, keep none; what it took."""
    task = TASKS.task("train", 0)
    requests = ((task, (0, 0, number, 0)) for number in range(episodes))
    before = resource.getrusage(resource.RUSAGE_SELF)
    began, done = time.perf_counter(), 0
    for episode in stream_episodes(
        Script(), partial(Slow, turns, latency), requests, batch_size=places, workers=workers
    ):
        assert episode.error is None
        assert len(episode.turns) == turns
        done += 1
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF)
    at_once = places if workers == "threads" else min(places, len(os.sched_getaffinity(0)))
    ideal = episodes * turns * latency / at_once
    return {
        "episodes": done,
        "at_once": at_once,
        "seconds": seconds,
        "ideal_seconds": ideal,
        "share_of_ideal": ideal / seconds,
        "processor_milliseconds_a_turn": 1000
        * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        / (episodes * turns),
        "peak_memory_mb": after.ru_maxrss / 1024,
        "grown_by_mb": (after.ru_maxrss - before.ru_maxrss) / 1024,
    }


def turn_of_lockstep(world: type[Slow], latency: float, places: int) -> float:
    """Milliseconds that one turn of all places takes, from episodes of one turn and of more."""
    task, more = TASKS.task("train", 0), 5 if latency else 100

    def seconds(turns: int) -> float:
        began = time.perf_counter()
        rollout(
            *(Script(), partial(world, turns, latency), [task]),
            group_size=places,
            batch_size=places,
        )
        return time.perf_counter() - began

    return 1000 * (seconds(more + 1) - seconds(1)) / more


def main() -> None:
    """Measure all three."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=2000)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--latency", type=float, default=0.1, help="seconds a turn")
    parser.add_argument("--places", type=int, default=256, help="episodes at a time")
    options = parser.parse_args()
    few, short = max(1, options.episodes // 20), options.latency / 5
    result = {
        "threads": measure(
            "threads", options.episodes, options.turns, options.latency, options.places
        ),
        "processes": measure("processes", few, options.turns, short, options.places),
        "lockstep": {
            "environments": options.places,
            "milliseconds_a_turn": {
                "waiting": turn_of_lockstep(Waiting, options.latency, options.places),
                "instant": turn_of_lockstep(Slow, 0.0, options.places),
                "instant_in_threads": turn_of_lockstep(Waiting, 0.0, options.places),
            },
        },
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
