"""Tasks of the library ``reasoning-gym``: a hundred generators, each with its own scorer."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from ovd_envs.errors import TaskError
from ovd_envs.grading.pool import Expired, shared_pool
from ovd_envs.stable import stable_hash
from ovd_envs.task import Task, TaskSource

#: One in this many questions belongs to the test.
_TEST_SHARE = 4
#: A generator that makes no new question for a split in this many items has too few of them.
_ATTEMPTS = 1000
#: Seconds that its scorer may take for one answer.
_DEADLINE = 10.0


class ReasoningGymTasks(TaskSource):
    """Tasks of one Reasoning Gym dataset, e.g. ``ReasoningGymTasks("chain_sum", min_terms=3)``.

    A hash of the question decides its split. The dataset's own scorer (0 to 1, some give part of
    it) is the reward; it runs in a worker process, as some evaluate what the student wrote.

    Args:
        dataset: name of the dataset.
        size: number of items to draw from; some datasets take long to prepare many.
        seed: seed of the dataset, part of what its tasks are.
        config: further settings of the dataset.

    Raises:
        TaskError: where the library is missing or does not accept the name or the settings.
    """

    def __init__(self, dataset: str, *, size: int = 10_000, seed: int = 0, **config: Any) -> None:
        self.name = f"reasoning-gym-{dataset}"
        self.dataset = dataset
        self._size = size
        self._config = json.dumps({"size": size, "seed": seed, **config}, sort_keys=True)
        try:
            import reasoning_gym
        except ImportError as error:
            raise TaskError(
                "reasoning-gym: not installed (pip install 'ovd[reasoning-gym]')"
            ) from error
        known = reasoning_gym.factory.DATASETS
        if dataset not in known:
            raise TaskError(
                f"reasoning-gym has no dataset {dataset!r}, see its list of {len(known)}"
            )
        try:
            self._items = reasoning_gym.create_dataset(dataset, **json.loads(self._config))
        except (TypeError, ValueError, AssertionError) as error:
            raise TaskError(f"reasoning-gym {dataset!r}: {error}") from error
        self._index = lru_cache(maxsize=65536)(self._find_index)

    def size(self, split: str) -> None:
        """No end of indices (questions may come again; see ``distinct``)."""
        self._check(split)

    def task(self, split: str, index: int) -> Task:
        """Task number ``index`` of ``split``."""
        self._check(split, index)
        item = self._index(split, index)
        entry = self._items[item]
        answer = entry["answer"]
        return Task(
            f"{self.name}/{split}/{index}",
            entry["question"],
            () if answer is None else (str(answer),),
            {"dataset": self.dataset, "item": item},
        )

    def score(self, task: Task, answer: str) -> float | None:
        """The dataset's own score of ``answer``; 0 where its scorer does not come to an end."""
        request = {
            "kind": "reasoning-gym",
            "dataset": self.dataset,
            "config": self._config,
            "index": task.metadata["item"],
            "answer": answer,
        }
        try:
            reply = shared_pool().ask(request, deadline=_DEADLINE)
        except Expired as error:
            if error.phase == "gold":
                raise TaskError(f"task {task.id!r}: cannot be made within {_DEADLINE} s") from error
            return 0.0
        # A scorer that raises was given something that is no answer to it.
        return float(reply.get("score", 0.0))

    def _find_index(self, split: str, index: int) -> int:
        for attempt in range(_ATTEMPTS):
            item = stable_hash(f"{split}/{index}/{attempt}") % self._size
            code = stable_hash(" ".join(self._items[item]["question"].split()))
            if (code % _TEST_SHARE == 0) == (split == "test"):
                return item
        raise TaskError(f"{self.name!r}: no question for split {split!r} in {_ATTEMPTS} items")
