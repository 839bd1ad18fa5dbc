"""What the student reads of results and pages: whole passages within a limit, no forged tags."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

#: Tags by which the protocols tell whose text is whose. In somebody else's text they are written
#: with other brackets, so that a page can neither end its own block nor act for the student.
_TAG = re.compile(
    r"<(\s*/?\s*(?:think|search|open|answer|information|tools?|tool_call|tool_response)\b[^<>]*)>",
    re.IGNORECASE,
)

#: Stands where text was left out.
CUT = " […]"

#: No unit that is counted has more characters than this, but for runs of blanks.
_LONG = 16

#: Where a text may be cut, the best place first.
_BREAKS = ("\n\n", "\n", ". ", " ")


def disarm(text: str) -> str:
    """``text`` without tags of the protocols: ``<answer>`` becomes ``‹answer›``."""
    return _TAG.sub(r"‹\1›", text)


def fit(passages: Sequence[str], limit: int, count: Callable[[str], int] = len) -> str:
    """As many whole passages as ``limit`` (by ``count``) holds, a line each.

    Of a first passage that is longer by itself the beginning is kept, so that a search that
    found something never looks empty.
    """
    kept = ""
    for passage in passages:
        longer = f"{kept}\n{passage}" if kept else passage
        if count(longer) > limit:
            break
        kept = longer
    return kept or (pages(passages[0], limit, count)[0] if passages else "")


def pages(text: str, limit: int, count: Callable[[str], int] = len) -> list[str]:
    """``text`` in parts of at most ``limit`` (by ``count``), cut between paragraphs or sentences.

    Every part but the last ends in ``CUT``. A text of blanks is one empty part.
    """
    rest, parts = text.strip(), []
    while len(rest) > _LONG * limit or count(rest) > limit:
        size = _prefix(rest, limit, count)
        size = _break(rest, size)
        parts.append(rest[:size].rstrip() + CUT)
        rest = rest[size:].lstrip()
    return [*parts, rest] if rest or not parts else parts


def _prefix(text: str, limit: int, count: Callable[[str], int]) -> int:
    """How many characters fit together with ``CUT``; at least one, so that there is an end."""
    low, high = 1, min(len(text), _LONG * limit)
    while low < high:  # the longest prefix, by halving: ``count`` grows with the text
        middle = (low + high + 1) // 2
        if count(text[:middle] + CUT) <= limit:
            low = middle
        else:
            high = middle - 1
    return low


def _break(text: str, size: int) -> int:
    """The last good place to cut in the second half of ``text[:size]``; ``size`` where none is."""
    for mark in _BREAKS:
        at = text.rfind(mark, size // 2, size)
        if at > 0:
            return at + len(mark)
    return size
