"""Make material fit a number of tokens: what the environment wrote gives way first."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

#: Tokens of an episode that a judge reads by default.
MAX_EPISODE_TOKENS = 8_000

Kind = Literal["observation", "message", "task"]

#: What gives way, in this order: the next only where the ones before have nothing more to give.
ORDER: tuple[Kind, ...] = ("observation", "message", "task")

#: What each kind is called in the prompt.
CALLED: dict[Kind, str] = {
    "observation": "the environment's answers",
    "message": "the model's messages",
    "task": "the task or its reference",
}

LEFT_OUT = "--- {mark} {count} characters left out here ---"

#: Small letters, and blanks before words: what tokenizers join.
_SMALL = re.compile(r"(?:[a-z]| (?=[A-Za-z]))+")
_CAPITAL = re.compile(r"[A-Z]+")


def estimated_tokens(text: str) -> int:
    """How many tokens ``text`` takes, where there is no tokenizer to ask: rather too many.

    A token for every three small letters (and blanks before words), every two capitals, every
    digit and other ASCII character, and two for every three bytes of UTF-8 beyond. That is a
    tokenizer that splits numbers into digits; only text without words (random letters, emoji) may
    take more.
    """
    rest = _SMALL.sub("", text)
    small = len(text) - len(rest)
    capitals = len(rest)
    rest = _CAPITAL.sub("", rest)
    capitals -= len(rest)
    others = len(rest) if rest.isascii() else sum(map(str.isascii, rest))
    beyond = len(rest.encode("utf-8", "replace")) - others
    return math.ceil(small / 3 + capitals / 2 + others + beyond * 2 / 3)


@dataclass(frozen=True, slots=True)
class Room:
    """So many ``tokens``, as ``count`` counts those of a text."""

    tokens: int
    count: Callable[[str], int] = estimated_tokens


class Part(NamedTuple):
    """A piece of the material, under a label of ours."""

    label: str
    content: str
    kind: Kind = "task"


@dataclass(frozen=True, slots=True)
class Shown:
    """What is left of a content: all of it in ``head``, or its beginning and its end."""

    head: str
    left_out: int = 0
    """Characters between ``head`` and ``tail`` that are not shown."""
    tail: str = ""

    def lines(self, mark: str) -> list[str]:
        """The text, with a line of structure where something is missing."""
        if not self.left_out:
            return [self.head]
        return [self.head, LEFT_OUT.format(mark=mark, count=self.left_out), self.tail]


def shortened(parts: Sequence[Part], room: Room) -> list[Shown]:
    """The parts, cut in their middles until all take at most ``room``, or nothing is left to cut.

    Observations are cut first, the longest of them to one common length; where they have nothing
    more to give the model's messages, and the task and its reference last of all. What says how
    much was left out stays and counts.
    """
    shown = [Shown(part.content) for part in parts]
    # No tokenizer makes more tokens of a text than it has bytes, but for one before it.
    if sum(len(part.content.encode()) + 1 for part in parts) <= room.tokens:
        return shown
    note = room.count(LEFT_OUT.format(mark="00000000", count=100_000))
    sizes = [room.count(part.content) for part in parts]
    for kind in ORDER:
        excess = sum(sizes) - room.tokens
        if excess <= 0:
            break
        # To cut what is no longer than the line that says so saves nothing.
        places = [n for n, part in enumerate(parts) if part.kind == kind and sizes[n] > note]
        limit = _common_limit([sizes[n] for n in places], sum(sizes[n] for n in places) - excess)
        for place in places:
            if sizes[place] > limit:
                kept = max(limit - note, 0)
                shown[place], size = _cut(parts[place].content, kept, sizes[place], room)
                sizes[place] = size + note
    return shown


def what_was_left_out(parts: Sequence[Part], shown: Sequence[Shown]) -> str:
    """How much of what was left out, in words; empty where all is there."""
    told = []
    for kind in ORDER:
        lost = [one.left_out for part, one in zip(parts, shown, strict=True) if part.kind == kind]
        if sum(lost):
            places = sum(map(bool, lost))
            told.append(f"{sum(lost)} characters of {CALLED[kind]} (in {places} of {len(lost)})")
    return ", ".join(told)


def _common_limit(sizes: Sequence[int], budget: int) -> int:
    """The length to which the longer ones are cut so that all together take ``budget``."""
    limit = left = max(budget, 0)
    # Short ones stay whole; what they leave is shared by the long ones.
    for number, size in enumerate(sorted(sizes)):
        limit = left // (len(sizes) - number)
        if size > limit:
            break
        left -= size
    return limit


def _cut(content: str, tokens: int, size: int, room: Room) -> tuple[Shown, int]:
    """The content, ``size`` tokens long, without its middle; and how many tokens that takes."""
    characters = len(content) * tokens // max(size, 1)
    while True:
        head, tail = characters - characters // 2, characters // 2
        shown = Shown(content[:head], len(content) - characters, content[len(content) - tail :])
        taken = sum(room.count(text) for text in (shown.head, shown.tail) if text)
        if taken <= tokens or not characters:
            return shown, taken
        # Some places are denser than the whole.
        characters = min(characters - 1, characters * tokens // taken)
