"""A demonstrator that shows episodes from a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agents.episode import Episode, read_episodes
from ovd_envs.errors import OVDError
from ovd_envs.task import Task


class SavedDemonstrator:
    """The demonstrator "saved": episodes of a file, whoever acted in them, matched by task id.

    Where there are several of a task, each place of a group is shown another, in the order of the
    file and from the first again. A task of which there is none, or which asks something else than
    the saved one of its id, gets an episode with an error, which is counted. Episodes that ended in
    an error themselves are passed over.

    Args:
        episodes: a JSONL file, as ``ovd run --out`` and ``ovd play --out`` write it.

    Raises ``OVDError`` where the file cannot be read, naming the row, and where it has no episode
    that could be shown.
    """

    name = "saved"

    def __init__(self, episodes: str | Path) -> None:
        self._by_task: dict[str, list[Episode]] = {}
        for episode in read_episodes(episodes):
            if episode.error is None and episode.turns:
                self._by_task.setdefault(episode.task.id, []).append(episode)
        if not self._by_task:
            raise OVDError(f"demonstrator 'saved': {episodes} has no episode that could be shown")

    def demonstrate(
        self,
        env: str,
        requests: Sequence[tuple[Task, tuple[int, ...]]],
        env_options: Mapping[str, Any] | None = None,
    ) -> list[Episode]:
        """One episode for each (task, seed), in order. See ``Demonstrator``."""
        return [self._show(env, task, seed) for task, seed in requests]

    def _show(self, env: str, task: Task, seed: tuple[int, ...]) -> Episode:
        group = "-".join(map(str, seed[1:-1])) or "0"
        place: dict[str, Any] = {"group": group, "index": seed[-1], "seed": seed}
        named = self._by_task.get(task.id, [])
        known = [episode for episode in named if episode.task.question == task.question]
        if not known:
            told = f"no saved episode of task {task.id!r}"
            if named:
                told = f"the saved episode of task {task.id!r} is of another question"
            return Episode(
                task, env, self.name, truncated=True, end_reason="error", error=told, **place
            )
        chosen = known[seed[-1] % len(known)]
        # Its text is what is shown: the tokens that somebody sampled are not the student's.
        turns = [replace(turn) for turn in chosen.turns]
        return replace(
            chosen, task=task, agent=self.name, turns=turns, segments=[], kept=0, **place
        )
