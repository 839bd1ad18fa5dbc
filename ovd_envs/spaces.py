"""The space of all Unicode texts up to a length."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any, overload

import numpy as np
from gymnasium.error import CustomSpaceError
from gymnasium.spaces import Text
from gymnasium.vector.utils import create_shared_memory

#: One past the largest code point.
_NUM_CODE_POINTS = 0x110000

#: Ranges (first, last) that samples are drawn from: what breaks naive code, each in turn.
_SAMPLE_RANGES = (
    (0x20, 0x7E),  # printable ASCII, digits and LaTeX included
    (0x09, 0x0D),  # tab and line breaks
    (0x00, 0x08),  # control characters, NUL among them
    (0xA0, 0x24F),  # accented Latin letters
    (0x300, 0x36F),  # combining marks
    (0x5D0, 0x64A),  # Hebrew and Arabic, right to left
    (0x660, 0x669),  # digits that are not ASCII
    (0x2070, 0x22FF),  # superscripts, arrows, mathematical operators
    (0x200B, 0x202E),  # zero-width and direction marks
    (0x4E00, 0x4FFF),  # Chinese characters
    (0x1F300, 0x1F6FF),  # pictures outside the basic plane
)


class _CodePoints(Sequence[str], Set[str]):
    """All characters, as a sequence and as a set, without holding any of them."""

    def __len__(self) -> int:
        return _NUM_CODE_POINTS

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...

    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [chr(point) for point in range(*index.indices(_NUM_CODE_POINTS))]
        if not 0 <= index < _NUM_CODE_POINTS:
            raise IndexError(index)
        return chr(index)

    def __contains__(self, item: object) -> bool:
        return isinstance(item, str) and len(item) == 1


_ALL = _CodePoints()


class UnicodeText(Text):
    """Every ``str`` of ``min_length`` to ``max_length`` code points.

    Gymnasium's own ``Text`` holds a finite character set whose default refuses a blank and most
    of what a language model writes. This space accepts any text; its samples mix scripts, control
    characters, digits and pictures, and are short (at most ``max_sample`` code points) so that a
    space of a million code points can still be sampled.

    Raises ``ValueError`` for lengths that are negative or in the wrong order.
    """

    def __init__(
        self,
        max_length: int = 1_000_000,
        *,
        min_length: int = 0,
        max_sample: int = 256,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        self.max_sample = max_sample
        super().__init__(max_length, min_length=min_length, charset=frozenset("a"), seed=seed)

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        """A random text, lone surrogates excluded. Masks have no meaning here and are refused."""
        if mask is not None or probability is not None:
            raise ValueError("UnicodeText: masks are not supported, its characters are not listed")
        longest = max(self.min_length, min(self.max_length, self.max_sample))
        length = int(self.np_random.integers(self.min_length, longest + 1))
        # Half ASCII: otherwise hardly any sample would look like a message.
        kinds = self.np_random.integers(0, 2 * len(_SAMPLE_RANGES), size=length)
        draws = self.np_random.random(size=length)
        characters = []
        for kind, draw in zip(kinds, draws, strict=True):
            first, last = _SAMPLE_RANGES[kind if kind < len(_SAMPLE_RANGES) else 0]
            characters.append(chr(first + int(draw * (last - first + 1))))
        return "".join(characters)

    def contains(self, x: Any) -> bool:
        """Whether ``x`` is a ``str`` of an allowed length."""
        return isinstance(x, str) and self.min_length <= len(x) <= self.max_length

    def __repr__(self) -> str:
        return f"UnicodeText({self.min_length}, {self.max_length})"

    def __eq__(self, other: object, /) -> bool:
        return (
            isinstance(other, UnicodeText)
            and self.min_length == other.min_length
            and self.max_length == other.max_length
        )

    # What Gymnasium's functions on text spaces read: a character's index is its code point.

    @property
    def character_set(self) -> Any:
        """All characters (a set that holds none of them)."""
        return _ALL

    @property
    def character_list(self) -> Any:
        """All characters by code point (a sequence that holds none of them)."""
        return _ALL

    @property
    def characters(self) -> Any:
        """All characters by code point, as ``character_list``."""
        return _ALL

    def character_index(self, char: str) -> np.int32:
        """The code point of ``char``."""
        return np.int32(ord(char))


@create_shared_memory.register(UnicodeText)
def _no_shared_memory(space: UnicodeText, n: int = 1, ctx: Any = None) -> Any:
    # Gymnasium reads texts from shared memory once, when it makes the vector environment, and
    # would return those blank texts for ever.
    raise CustomSpaceError(
        "texts cannot be in shared memory: make the vector environment with "
        "vector_kwargs={'shared_memory': False}"
    )
