"""The main text of a page, whole: menus and footers left out, nothing of the matter lost."""

from __future__ import annotations

import copy
import logging
import re
from dataclasses import dataclass

from lxml.html import HtmlElement

from ovd_envs.web.blocks import read_blocks
from ovd_envs.web.coverage import cover, share_of
from ovd_envs.web.dom import depth, json_ld_scripts, make_readable, parse, title_of
from ovd_envs.web.encoding import decode
from ovd_envs.web.json_ld import article
from ovd_envs.web.plain_text import clean, strip_markup, tidy

#: The fallback is read instead of trafilatura's text where that keeps less than this share of the
#: matter and lacks more than a byline (words), or lacks many words whatever their share: a table,
#: or the captions, of a long page.
ENOUGH = 0.9
FEW_WORDS = 30
MANY_WORDS = 200
#: Elements, and elements in one another, beyond which trafilatura is not asked: there its time
#: grows faster than the page.
_MOST_ELEMENTS = 100_000
_DEEP = 300
#: Tags beyond which a page is not parsed (seconds, and a kilobyte for each), and the depth at
#: which libxml2 (2048) drops the rest of a page without a word.
_MOST_TAGS = 600_000
_DEEPEST = 2_000
#: libxml2 compares each attribute of a tag with all before it. A tag of this length is a data URL
#: or an attack; it goes on without attributes.
_LONG_TAG = re.compile(r"<([a-zA-Z][^\s<>/]*+)[^<>]{8192,}>")

HTML_TYPES = ("text/html", "application/xhtml+xml")


@dataclass(frozen=True, slots=True)
class Extracted:
    """The text of a page and how it was found."""

    title: str
    text: str
    """Paragraphs, headings, list items and table rows, one to a line."""
    how: str
    """"trafilatura"; "blocks": the paragraphs that stand around what trafilatura found, because
    it had missed some; "json-ld": the body that the page gives in JSON-LD, because neither had
    it; "stripped": all text, because the page is nested too deep to be parsed; "plain": no HTML.
    """
    encoding: str
    """What bytes were read as, Python's name; "" where a text was given."""
    kept: float
    """Share of the matter's words that trafilatura kept, as the fallback sees it, 0-1."""


def extract(page: bytes | str, content_type: str = "text/html") -> Extracted:
    """Title and main text of a page; raises nothing, whatever the page holds.

    Args:
        page: as it came, decompressed; or as text.
        content_type: the HTTP header, with its charset where it has one. HTML is parsed, of XML
            the text is read, everything else is text already.
    """
    kind, _, parameters = content_type.lower().partition(";")
    encoding = ""
    if isinstance(page, bytes):
        charset = re.search(r"charset\s*=\s*([^;\s]+)", parameters)
        page, encoding = decode(page, charset[1] if charset else "")
    source, kind = clean(page), kind.strip()
    if kind in HTML_TYPES:
        return _extract_html(source, encoding)
    text = strip_markup(source) if kind.endswith(("/xml", "+xml")) else source.strip()
    return Extracted("", text, "plain", encoding, 1.0)


def _extract_html(source: str, encoding: str) -> Extracted:
    root = parse(_LONG_TAG.sub(r"<\1>", source)) if source.count("<") <= _MOST_TAGS else None
    deep = depth(root) if root is not None else 0
    if root is None or deep >= _DEEPEST:
        return Extracted("", strip_markup(source), "stripped", encoding, 0.0)
    headline, body = article(json_ld_scripts(root))
    title = clean(title_of(root) or headline)
    make_readable(root)
    blocks = read_blocks(root)
    simple = deep <= _DEEP and len(blocks.parents) <= _MOST_ELEMENTS
    found = _trafilatura(root) if simple else ""
    text, how = tidy(clean(found).split("\n")), "trafilatura"
    matter = cover(blocks, text)
    much_less = matter.kept < ENOUGH and matter.missing >= FEW_WORDS
    if much_less or matter.missing >= MANY_WORDS or not text:
        # A page that is nothing but links, or menus by its author's words, is read all the same.
        shown = matter.blocks or blocks.blocks
        text, how = clean("\n".join(block.text for block in shown)), "blocks"
    if body and share_of(body, text) < ENOUGH:
        lacking = [line for line in text.split("\n") if share_of(line, body) < ENOUGH]
        text, how = tidy([*clean(body).split("\n"), "", *lacking]), "json-ld"
    return Extracted(title, text, how, encoding, matter.kept)


def _trafilatura(root: HtmlElement) -> str:
    """What trafilatura takes for the main text; nothing where it fails."""
    import trafilatura

    # It says "discarding data" of every page without an article; that is no news to our caller.
    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    try:
        return trafilatura.extract(copy.deepcopy(root)) or ""
    except Exception:  # noqa: BLE001 - whatever a stranger's page makes it raise, we read the page
        return ""
