"""Keyed permutations of 0..n-1 and even assignments, both computed, never stored, and invertible.

They let a world of a million pages be made page by page: who is married to whom, and which
people were born in a town, is arithmetic on an index.
"""

from __future__ import annotations

from ovd_envs.stable import stable_hash

_WORD = (1 << 64) - 1
_ROUNDS = 3


def noise(key: int, index: int) -> int:
    """64 bits that look random for each (key, index): the finalizer of SplitMix64.

    Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
    """
    x = (key + index * 0x9E3779B97F4A7C15) & _WORD
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _WORD
    return x ^ (x >> 31)


class Shuffle:
    """A permutation of ``range(size)`` that ``key`` chooses.

    Rounds of "multiply by an odd number, add, fold the upper half onto the lower" permute the
    numbers of so many bits; an image outside the range is mapped again until it is inside.
    """

    def __init__(self, size: int, key: str) -> None:
        bits = max(2, (size - 1).bit_length())
        self.size = size
        self._mask = (1 << bits) - 1
        self._shift = (bits + 1) // 2  # at least half of the bits: the fold is its own inverse
        code = stable_hash(f"shuffle {key}")
        self._rounds = [
            (noise(code, 2 * n) & self._mask | 1, noise(code, 2 * n + 1) & self._mask)
            for n in range(_ROUNDS)
        ]
        self._back = [(pow(a, -1, 1 << bits), b) for a, b in reversed(self._rounds)]

    def __call__(self, index: int) -> int:
        """Where ``index`` goes."""
        mask, shift = self._mask, self._shift
        while True:
            for a, b in self._rounds:
                index = (index * a + b) & mask
                index ^= index >> shift
            if index < self.size:
                return index

    def inverse(self, image: int) -> int:
        """The index that goes to ``image``."""
        mask, shift = self._mask, self._shift
        while True:
            for a, b in self._back:
                image ^= image >> shift
                image = ((image - b) * a) & mask
            if image < self.size:
                return image


class Assignment:
    """Gives each of ``size`` sources one of ``targets`` targets, each target equally often.

    Even shares keep the best constant guess as bad as it can be.
    """

    def __init__(self, size: int, targets: int, key: str) -> None:
        self.size = size
        self.targets = targets
        self._shuffle = Shuffle(size, key)

    def __call__(self, source: int) -> int:
        """The target of ``source``."""
        return self._shuffle(source) % self.targets

    def count(self, target: int) -> int:
        """How many sources ``target`` has."""
        return max(0, -(-(self.size - target) // self.targets))

    def source(self, target: int, number: int) -> int:
        """Source ``number`` of ``target``, from 0 to below ``count(target)``."""
        return self._shuffle.inverse(target + number * self.targets)
