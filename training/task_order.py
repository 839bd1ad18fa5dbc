"""Which tasks a step trains on."""

from __future__ import annotations

import numpy as np

from ovd_envs.task import Task, TaskSource
from training.config import Config, ConfigError


def training_tasks(source: TaskSource, config: Config, step: int) -> list[Task]:
    """The tasks of a step: from (seed, step) alone, no question twice.

    An unlimited source is drawn from; a finite one is gone through in a new order every epoch,
    of which the tasks that would not fill a step are left out.
    """
    count, size = config.rollout.tasks_per_step, source.size(config.split)
    if size is None:
        rng = np.random.default_rng([config.seed, step])
        tasks: dict[str, Task] = {}
        for _ in range(100 * count):
            task = source.draw(config.split, rng)
            tasks.setdefault(task.question, task)
            if len(tasks) == count:
                return list(tasks.values())
        raise ConfigError(
            f"rollout.tasks_per_step: split {config.split!r} has not {count} questions"
        )
    if size < count:
        raise ConfigError(
            f"rollout.tasks_per_step: expected at most {size}, the size of split "
            f"{config.split!r}, got {count}"
        )
    epoch, place = divmod(step - 1, size // count)
    order = np.random.default_rng([config.seed, epoch]).permutation(size)
    return [source.task(config.split, int(i)) for i in order[place * count : (place + 1) * count]]
