"""Hashes and random draws that are the same on every machine and in every Python."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def stable_hash(text: str) -> int:
    """A 64-bit hash of ``text`` (``hash`` differs between processes)."""
    data = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


class Draw:
    """Random choices from a text seed.

    Built on ``random()`` alone, the one method of ``random.Random`` whose sequence Python
    promises to keep.
    """

    def __init__(self, seed: str) -> None:
        self._random = random.Random(stable_hash(seed)).random

    def integer(self, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``, both included."""
        return low + int(self._random() * (high - low + 1))

    def choice(self, items: Sequence[T]) -> T:
        """One of ``items``."""
        return items[int(self._random() * len(items))]

    def chance(self, probability: float) -> bool:
        """``True`` with this probability."""
        return self._random() < probability
