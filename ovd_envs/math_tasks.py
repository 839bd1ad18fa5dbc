"""Arithmetic tasks made from nothing but their index."""

from __future__ import annotations

import hashlib
from functools import lru_cache

from ovd_envs.errors import TaskError
from ovd_envs.task import Task, TaskSource


def stable_hash(text: str) -> int:
    """A 64-bit hash of ``text`` that is the same on every machine and in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


@lru_cache(maxsize=None)
def _addition(split: str) -> list[tuple[int, int]]:
    """The operands of ``split`` in their final order.

    The unordered pair decides the split, so that 58 + 37 is never trained where 37 + 58 is asked
    in the test. Training has both orders, the test one of them.
    """
    pairs = []
    for a in range(10, 100):
        for b in range(a, 100):
            code = stable_hash(f"addition {a} {b}")
            if (code % 16 == 0) != (split == "test"):
                continue
            if split == "test":
                pairs.append((a, b) if code & 16 else (b, a))
            else:
                pairs.extend({(a, b), (b, a)})
    return sorted(pairs, key=lambda pair: stable_hash(f"order {pair[0]} {pair[1]}"))


class ArithmeticTasks(TaskSource):
    """Arithmetic tasks of one level."""

    grading = "number"

    def __init__(self, level: str = "addition") -> None:
        if level != "addition":
            raise TaskError(f"level: expected addition, got {level!r}")
        self.level = level
        self.name = f"math-{level}"

    def size(self, split: str) -> int | None:
        """Number of tasks in ``split``."""
        self._check(split)
        return len(_addition(split))

    def task(self, split: str, index: int) -> Task:
        """Task number ``index`` of ``split``."""
        self._check(split, index)
        a, b = _addition(split)[index]
        return Task(
            f"{self.name}/{split}/{index}",
            f"What is {a} + {b}?",
            (str(a + b),),
            {"level": self.level, "operands": [a, b], "solution": [f"{a} + {b} = {a + b}"]},
        )
