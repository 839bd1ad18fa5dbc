"""Many slow episodes at a time: how near to the ideal, and in how much memory.

    python benchmarks/rollouts.py

A scripted agent, environments that sleep at each step as a web page would make them wait; the ideal
is episodes x turns x latency / places. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Sequence
from typing import Any

from agents.episode import Episode
from agents.free_rollout import stream_episodes
from agents.protocol import Act
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
        time.sleep(self.latency)
        return Reply("And?", end="done" if self.turn >= self.length else None)


class Script:
    """Says the same thing at every turn."""

    name = "script"

    def act(self, episodes: Sequence[Episode]) -> list[Act]:
        """At once."""
        return [Act("go on") for _ in episodes]


def main() -> None:
    """Run them all, keep none, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=2000)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--latency", type=float, default=0.1, help="seconds a turn")
    parser.add_argument("--places", type=int, default=256, help="episodes at a time")
    options = parser.parse_args()
    task = TASKS.task("train", 0)
    requests = ((task, (0, 0, number, 0)) for number in range(options.episodes))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, done = time.perf_counter(), 0
    for episode in stream_episodes(
        Script(),
        lambda: Slow(options.turns, options.latency),
        requests,
        batch_size=options.places,
    ):
        assert episode.error is None
        assert len(episode.turns) == options.turns
        done += 1
    seconds = time.perf_counter() - began
    ideal = options.episodes * options.turns * options.latency / options.places
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result: dict[str, Any] = {
        "episodes": done,
        "seconds": seconds,
        "ideal_seconds": ideal,
        "share_of_ideal": ideal / seconds,
        "peak_memory_mb": after / 1024,
        "grown_by_mb": (after - before) / 1024,
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
