"""Text without what no reader sees: control characters, odd spaces, markup."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

#: Control characters but tab and line ends; the soft hyphen, zero-width space, word joiner, byte
#: order mark and the marks that turn the direction of text; and halves of surrogate pairs.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b\u2060\ufeff\u202a-\u202e\u2066-\u2069"
    "\ud800-\udfff\ufffe\uffff]"
)
_LINE_END = re.compile("\r\n?|[\f\x85\u2028\u2029]")
_NO_TEXT = re.compile(r"<(script|style|template)\b.*?(?:</\1\s*>|\Z)", re.I | re.DOTALL)
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_CDATA = re.compile(r"<!\[CDATA\[(.*?)(?:\]\]>|\Z)", re.DOTALL)
_LINE_TAG = re.compile(
    r"</?(?:p|div|br|hr|li|ul|ol|dl|dt|dd|tr|table|h[1-6]|section|article|blockquote|pre|title"
    r"|item|entry|description|summary|row|record)\b[^<>]*>",
    re.I,
)
_TAG = re.compile(r"</?[a-zA-Z?!][^<>]*>")


def clean(text: str) -> str:
    """``text`` with one kind of line end and without characters that are not seen."""
    return _UNSEEN.sub("", _LINE_END.sub("\n", text))


def tidy(lines: Iterable[str]) -> str:
    """Lines as one text: spaces made single (but indents kept), at most one blank line in a row."""
    kept: list[str] = []
    for line in lines:
        indent = line[: len(line) - len(line.lstrip(" "))]
        line = " ".join(line.split())
        if line or (kept and kept[-1]):
            kept.append(indent + line if line else "")
    return "\n".join(kept).strip()


def strip_markup(source: str) -> str:
    """All text of HTML or XML that cannot be parsed: tags, scripts and comments taken out.

    Linear in the size of ``source``, whatever it holds.
    """
    text = _CDATA.sub(lambda found: found[1], source)
    text = _COMMENT.sub("", _NO_TEXT.sub("", text))
    text = _TAG.sub(" ", _LINE_TAG.sub("\n", text))
    return tidy(line.strip() for line in clean(html.unescape(text)).splitlines())
