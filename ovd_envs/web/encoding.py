"""Bytes of a page to text: what it declares, and what it is."""

from __future__ import annotations

import codecs
import re

#: Names that the web uses for a larger encoding than they say (WHATWG Encoding Standard, section
#: 4.2), by Python's name of the one that is declared.
_LARGER = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "big5": "big5hkscs",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "johab": "cp949",
}
#: Encodings whose bytes are all ASCII (escapes), so that "it is UTF-8" says nothing of them.
_SEVEN_BITS = {"iso2022_jp", "hz"}
#: Codecs of Python that no page may ask for: transforms, and a way around filters.
_NEVER = re.compile(r"utf_?-?7|idna|punycode|.*escape.*|undefined|mbcs|oem|palmos", re.I)

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_META = re.compile(rb"""<meta\b[^>]*?charset\s*=\s*+["']?\s*+([\w.:-]+)""", re.I)
_XML = re.compile(rb"""^\s*<\?xml\b[^>]*?encoding\s*=\s*["']([\w.:-]+)""", re.I)
#: Where a declaration may stand. WHATWG says 1024; real pages put comments and scripts first.
_HEAD = 16_384
_SAMPLE = 65_536


def decode(body: bytes, charset: str = "") -> tuple[str, str]:
    """The text of ``body`` and the encoding it was read in (Python's name); never raises.

    A byte order mark wins; then UTF-8, where the bytes are UTF-8 beyond chance, whatever is
    declared; then the first of ``charset`` (the HTTP header's) and the page's own declaration that
    fits all bytes; then what the bytes look like. Bytes that do not fit become U+FFFD.
    """
    for mark, name in _BOMS:
        if body.startswith(mark):
            return body[len(mark) :].decode(name, errors="replace"), name
    declared = [name for name in (_known(charset), _declared(body)) if name]
    wide = [name for name in declared if name.startswith(("utf-16", "utf-32"))]
    if wide and b"\0" in body[:_SAMPLE]:
        return body.decode(wide[0], errors="replace"), wide[0]
    if not any(name in _SEVEN_BITS for name in declared) and _is_utf8(body):
        return body.decode("utf-8", errors="replace"), "utf-8"
    declared = [name for name in declared if name not in wide]
    for name in declared:
        try:
            return body.decode(name), name
        except UnicodeDecodeError:
            continue
    name = declared[0] if declared and declared[0] != "utf-8" else _guess(body)
    return body.decode(name, errors="replace"), name


def _known(label: str) -> str:
    """Python's name of the encoding that the web means by ``label``; empty if there is none."""
    label = label.strip().strip("\"'").lower()
    if not label or _NEVER.fullmatch(label):
        return ""
    try:
        found = codecs.lookup(label)
        if not isinstance(b"".decode(found.name), str):  # "base64", "rot13": not of text
            return ""
    except (LookupError, ValueError):
        return ""
    return _LARGER.get(found.name, found.name)


def _declared(body: bytes) -> str:
    found = _XML.search(body[:_HEAD]) or _META.search(body[:_HEAD])
    name = _known(found[1].decode("ascii", "replace")) if found else ""
    # A declaration that could be read as ASCII is not in UTF-16.
    return "utf-8" if name.startswith(("utf-16", "utf-32")) else name


def _is_utf8(body: bytes) -> bool:
    """Whether ``body`` is UTF-8 by its bytes: at most one fault to ten long characters.

    A cut or damaged character does not make a page another encoding's; text of another encoding
    rarely has two bytes that fit. Plain ASCII is UTF-8.
    """
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        text = body.decode("utf-8", errors="replace")
        faults = text.count("\ufffd")
        return sum(character > "\x7f" for character in text) - faults > 10 * faults
    return True


def _guess(body: bytes) -> str:
    """The encoding that undeclared bytes look like; windows-1252 where nothing can be said."""
    from charset_normalizer import from_bytes

    # Markup is ASCII in nearly every encoding, and says nothing.
    text = re.sub(rb"<[^<>]*>", b" ", body[: 8 * _SAMPLE])
    lines = [line for line in text.splitlines() if not line.isascii()]
    best = from_bytes(b"\n".join(lines)[:_SAMPLE]).best() if lines else None
    return _known(best.encoding) if best is not None and _known(best.encoding) else "cp1252"
