"""The blocks of a page: paragraphs, headings, list items and table rows, as a reader sees them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lxml import etree
from lxml.html import HtmlElement


def _names(names: str) -> frozenset[str]:
    return frozenset(names.split())


#: Elements that begin a line of their own (HTML Standard, section 15.3, and older ones).
_LINES = _names(
    "address article aside blockquote body br caption center dd details dialog dir div dl dt "
    "fieldset figcaption figure footer form h1 h2 h3 h4 h5 h6 header hgroup hr html legend li "
    "listing main menu nav ol p plaintext pre search section summary table tbody tfoot thead "
    "tr td th ul xmp"
)
#: Elements whose text no reader sees, and controls.
_UNSEEN = _names(
    "applet audio button canvas datalist embed head iframe input map meter noembed noframes "
    "noscript object progress script select style svg template textarea title video"
)
#: Elements, roles and words in a class or id by which authors name what is around the matter.
_AROUND = _names("nav footer aside menu dialog")
_AROUND_ROLES = _names(
    "navigation banner contentinfo complementary search dialog alertdialog menu menubar"
)
_AROUND_WORDS = _names(
    "ad ads advert advertisement breadcrumb breadcrumbs catlinks comment comments consent "
    "cookie cookies footer masthead menu nav navbar navbox navigation newsletter outbrain "
    "pagination popup promo recommended related share sharing sidebar social sponsored "
    "subscribe taboola teaser teasers toolbar"
)
_HEADINGS = _names("h1 h2 h3 h4 h5 h6")
_WORD = re.compile(r"[a-z]+")
_HIDDEN = re.compile(r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*hidden)", re.I)
#: A table row of more characters is layout, not data.
_LONGEST_ROW = 2_000


@dataclass(frozen=True, slots=True)
class Block:
    """One paragraph, heading, list item or table row."""

    text: str
    """One line (more in preformatted text); the cells of a row are parted by " | "."""
    element: int
    """Number of the innermost element around it."""
    around: int
    """Number of the innermost element around it that its author names as being around the matter
    (a menu, a footer, a share bar); 0 if there is none."""
    link_share: float
    """Share of its characters that are in links, 0-1."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """The visible blocks of a page, in order, and how its elements hold them."""

    blocks: list[Block]
    parents: list[int]
    """Number of the element around each element, by number. Elements are numbered from 1 as they
    begin, so those within one follow it; 0 is what is around the page."""


def read_blocks(root: HtmlElement) -> Blocks:
    """The visible blocks of ``root``; linear in its size, and without recursion."""
    walk = _Walk(root)
    return Blocks(list(walk.blocks()), walk.parents)


class _Walk:
    def __init__(self, root: HtmlElement) -> None:
        self._root = root
        self._rows: set[HtmlElement] = set()
        self._around: set[HtmlElement] = set()
        self._survey()
        self._text: list[str] = []
        self._linked = 0
        self._links = 0
        self._row: HtmlElement | None = None
        self._pre = 0
        self._skipped = False
        self._outside = [0]
        self._path: list[int] = [0]
        self.parents: list[int] = [0]

    def _survey(self) -> None:
        """Find what can be told of an element only when its end is known: is a row data, and is
        something that is named as being around the matter small enough to be that?
        """
        length = breaks = 0
        begun: list[tuple[int, int]] = []
        named: list[tuple[HtmlElement, int]] = []
        for event, element in etree.iterwalk(self._root, events=("start", "end")):
            if event == "start":
                begun.append((length, breaks))
                length += len(element.text or "") if element.tag not in _UNSEEN else 0
                continue
            length_before, breaks_before = begun.pop()
            size = length - length_before
            if element.tag == "tr" and breaks == breaks_before and size <= _LONGEST_ROW:
                self._rows.add(element)
            breaks += element.tag == "table" or element.tag in _HEADINGS
            if _named_around(element):
                named.append((element, size))
            length += len(element.tail or "")
        self._around = {element for element, size in named if 2 * size <= length}

    def blocks(self) -> Iterator[Block]:
        walk = etree.iterwalk(self._root, events=("start", "end"))
        number = 0
        for event, element in walk:
            tag = element.tag
            if event == "start":
                if not isinstance(tag, str) or tag in _UNSEEN or _hidden(element):
                    walk.skip_subtree()
                    self._skipped = True
                    continue
                if tag in _LINES:
                    yield from self._line(tag)
                number += 1
                self.parents.append(self._path[-1])
                self._path.append(number)
                if element in self._around:
                    self._outside.append(number)
                self._links += tag == "a"
                self._pre += tag in ("pre", "listing", "xmp")
                if element in self._rows and self._row is None:
                    self._row = element
                self._add(element.text)
            else:
                if self._skipped:
                    self._skipped = False
                else:
                    if tag in _LINES:
                        yield from self._line(tag, ended=element)
                    if element in self._around:
                        self._outside.pop()
                    self._links -= tag == "a"
                    self._pre -= tag in ("pre", "listing", "xmp")
                    self._path.pop()
                self._add(element.tail)
        yield from self._flush()

    def _line(self, tag: str, ended: HtmlElement | None = None) -> Iterator[Block]:
        """Begin a line, or only a cell or a space where a data row is being read."""
        if self._row is None:
            yield from self._flush()
        elif ended is self._row:
            self._row = None
            yield from self._flush()
        elif tag in ("td", "th") and ended is None:
            self._text.append("\0")
        else:
            self._text.append(" ")

    def _add(self, text: str | None) -> None:
        if text:
            self._text.append(text)
            if self._links:
                self._linked += len(text.strip())

    def _flush(self) -> Iterator[Block]:
        raw, self._text = "".join(self._text), []
        linked, self._linked = self._linked, 0
        if self._pre:
            lines = [" ".join(raw.split("\0"))]
            text = "\n".join(line.rstrip() for line in lines[0].strip("\n").split("\n")).rstrip()
        else:
            cells = (" ".join(cell.split()) for cell in raw.split("\0"))
            text = " | ".join(cell for cell in cells if cell)
        if text.strip():
            share = min(1.0, linked / len(text))
            yield Block(text, self._path[-1], self._outside[-1], share)


def _named_around(element: HtmlElement) -> bool:
    if element.tag in _AROUND or element.get("role") in _AROUND_ROLES:
        return True
    names = f"{element.get('class') or ''} {element.get('id') or ''}".lower()
    return bool(names.strip()) and not _AROUND_WORDS.isdisjoint(_WORD.findall(names))


def _hidden(element: HtmlElement) -> bool:
    style = element.get("style")
    return element.get("hidden") is not None or bool(style and _HIDDEN.search(style))
