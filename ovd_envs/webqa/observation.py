"""What the student reads of results and pages: whole passages within a limit, no forged tags."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

#: Tags by which the protocols tell whose text is whose, whether they end or not. In somebody
#: else's text they are written with other brackets, so that a page can neither end its own block
#: nor act for the student. Possessive: a page of blanks must not take minutes.
_TAG = re.compile(
    r"<(\s*+/?+\s*+(?:think|search|open|answer|information|tools?|tool_call|tool_response)\b)"
    r"(?:([^<>]*+)(>))?+",
    re.IGNORECASE,
)

#: Stands where text was left out.
CUT = " […]"

#: No unit that is counted has more characters than this, but for runs of blanks and the like.
_LONG = 16

#: Where a text may be cut, the best place first.
_BREAKS = ("\n\n", "\n", ". ", " ")


def disarm(text: str) -> str:
    """``text`` without tags of the protocols: ``<answer>`` becomes ``‹answer›``.

    Half a surrogate pair, which no tokenizer takes, becomes "?".
    """
    whole = text.encode("utf-8", "replace").decode()
    return _TAG.sub(lambda tag: f"‹{tag[1]}{tag[2] or ''}{'›' if tag[3] else ''}", whole)


def fit(passages: Sequence[str], limit: int, count: Callable[[str], int] = len) -> tuple[str, int]:
    """As many whole passages as ``limit`` (by ``count``) holds, a line each, and their number.

    Of a first passage that is longer by itself the beginning is kept, so that a search that
    found something never looks empty.
    """
    kept = ""
    for number, passage in enumerate(passages):
        longer = f"{kept}\n{passage}" if number else passage
        if not _fits(longer, limit, count):
            return (kept, number) if number else (next(_parts(passage, limit, count)), 1)
        kept = longer
    return kept, len(passages)


def pages(text: str, limit: int, count: Callable[[str], int] = len) -> list[str]:
    """``text`` in parts of at most ``limit`` (by ``count``), cut between paragraphs or sentences.

    Every part but the last ends in ``CUT``: a limit must hold that and a character, or a part of
    one character is longer. A text of blanks is one empty part.
    """
    return list(_parts(text, limit, count))


def _parts(text: str, limit: int, count: Callable[[str], int]) -> Iterator[str]:
    text = text.strip()
    start = 0
    while True:
        # Looked at through a window: a copy of all the rest for each part would be quadratic.
        rest = text[start : start + _LONG * limit + 1]
        if _fits(rest, limit, count):
            yield rest
            return
        size = _prefix(rest, limit, count)
        good = _break(rest, size)
        part = rest[:good].rstrip() + CUT
        if count(part) > limit:  # tokenizers may write a shorter text in more tokens
            good, part = size, rest[:size] + CUT
        yield part
        start += good
        while start < len(text) and text[start].isspace():
            start += 1


def _fits(text: str, limit: int, count: Callable[[str], int]) -> bool:
    return len(text) <= _LONG * limit and count(text) <= limit


def _prefix(text: str, limit: int, count: Callable[[str], int]) -> int:
    """About how many characters fit together with ``CUT``; at least one, so that there is an end.

    Not to the last character: a tokenizer reads a megabyte in a second, and each try costs.
    """
    most = min(len(text), _LONG * limit)
    low, high = 1, min(limit, most)
    while high < most and count(text[:high] + CUT) <= limit:
        low, high = high, min(2 * high, most)
    while high - low > low // 32:
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
