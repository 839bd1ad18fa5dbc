"""How much of a page's matter a text holds, and what it lacks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ovd_envs.web.blocks import Block, Blocks

_WORD = re.compile(r"[^\W_]+")
#: A block is found when this share of its runs of three words is in the text.
_FOUND = 0.5
#: The matter stands in the smallest element that holds this share of what was found. Not all:
#: the headline, or a line of the footer taken in by mistake, may stand apart.
_MOST = 0.9
#: A block with a larger share of its characters in links is a menu or a list of links.
_LINKS = 0.5


@dataclass(frozen=True, slots=True)
class Coverage:
    """What a text holds of the matter of a page."""

    kept: float
    """Share of the matter's words in blocks that the text holds, 0-1; 1 where there is none."""
    missing: int
    """Words in blocks of the matter that the text lacks."""
    blocks: list[Block]
    """The matter, and what else the text holds, in order, and no paragraph twice."""


def cover(page: Blocks, text: str) -> Coverage:
    """What ``text`` holds of ``page``.

    The matter is every block within the smallest element that holds nearly all that was found,
    unless it is mostly links or its author names it as something around the matter. Where ``text``
    is empty, the whole page is searched for matter.
    """
    runs, blocks = _Runs(text), page.blocks
    found = {index for index, block in enumerate(blocks) if runs.share(block.text) >= _FOUND}
    frame, last = _frame(page, found)
    seen: set[str] = set()
    matter: list[Block] = []
    words = kept = 0
    for index, block in enumerate(blocks):
        inside = frame <= block.element <= last
        part = inside and block.around <= frame and block.link_share <= _LINKS
        length = _count(block.text)
        if not part and (index not in found or length < 3):
            continue
        # The same caption three times is once; a row of a table may well be there twice.
        if length >= 3 and " | " not in block.text and block.text in seen:
            continue
        seen.add(block.text)
        matter.append(block)
        if part:
            words += length
            kept += length * (index in found)
    return Coverage(kept / words if words else 1.0, words - kept, matter)


def share_of(part: str, text: str) -> float:
    """Share of the runs of three words of ``part`` that ``text`` holds, 0-1."""
    return _Runs(text).share(part)


class _Runs:
    """The runs of up to three words of a text."""

    def __init__(self, text: str) -> None:
        words = _WORD.findall(text.lower())
        self._runs = {run for length in (1, 2, 3) for run in _runs(words, length)}

    def share(self, text: str) -> float:
        """Share of the runs of ``text`` that are in this one; 0 where ``text`` has no word."""
        words = _WORD.findall(text.lower())
        runs = list(_runs(words, min(3, len(words)))) if words else []
        return sum(run in self._runs for run in runs) / len(runs) if runs else 0.0


def _runs(words: Sequence[str], length: int) -> Iterator[tuple[str, ...]]:
    return zip(*(words[start:] for start in range(length)), strict=False)


def _frame(page: Blocks, found: set[int]) -> tuple[int, int]:
    """The smallest element that holds ``_MOST`` of the found words, and the last one within it."""
    held = [0] * len(page.parents)
    for index in found:
        length = _count(page.blocks[index].text)
        held[page.blocks[index].element] += length if length >= 3 else 0
    last = list(range(len(held)))
    for number in range(len(held) - 1, 0, -1):
        parent = page.parents[number]
        held[parent] += held[number]
        last[parent] = max(last[parent], last[number])
    enough = _MOST * held[0]
    # Elements are numbered as they begin: of those that hold enough the last is the innermost.
    frame = max(n for n, words in enumerate(held) if words >= enough) if held[0] else 0
    return frame, last[frame]


def _count(text: str) -> int:
    return len(_WORD.findall(text))
