"""Plain numbers in answers: the fast path of grading, exact and in this process."""

from __future__ import annotations

import re
from fractions import Fraction

_BLANK = "[ \u00a0\u202f]"
#: 1,234  1{,}234  1\,234  1 234
_DIGITS = rf"(?:[1-9]\d{{0,2}}(?:(?:,|\{{,\}}|\\,|\\!|,\\!|{_BLANK}|\\ )\d{{3}})+(?!\d)|\d+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.\d*)?|\.\d+)"
_NUMBER = re.compile(
    rf"(?P<sign>[-+\u2212]?)\s*(?P<value>{_DECIMAL})"
    rf"(?:\s*/\s*(?P<low>{_DECIMAL})|[eE](?P<exponent>[-+]?\d{{1,3}}))?",
    re.ASCII,
)
_LATEX_FRACTION = re.compile(
    r"(?P<sign>[-+\u2212]?)\s*(?P<whole>\d*)\s*\\[dtc]?frac\s*"
    r"(?:\{\s*(?P<top>-?\d+)\s*\}|(?P<top1>\d))\s*(?:\{\s*(?P<low>-?\d+)\s*\}|(?P<low1>\d))",
    re.ASCII,
)
_SEPARATORS = re.compile(r"[, \u00a0\u202f\\{}!]")
_DECIMAL_COMMA = re.compile(r"-?\d+,\d+", re.ASCII)

#: What stands around a number without changing it: math marks, currency, closing punctuation.
_AROUND = r"[\s$\u20ac\u00a3\u00a5*]|\\[$,;!: ]"
_BEFORE = re.compile(rf"^(?:{_AROUND}|\\[(\[])+")
_AFTER = re.compile(rf"(?:{_AROUND}|[.,;]|\\[)\]])+$")
_SIGNED_CURRENCY = re.compile(r"^([-+\u2212])(?:\\?\$|[\u20ac\u00a3\u00a5])\s*")
#: A unit: in \\text{}, a percent or degree sign, a usual short name, or a word of its own. A letter
#: that touches the number is a variable: 5x is not 5.
_UNIT = re.compile(
    r"(?P<number>[^A-Za-z\\%\u00b0]+?|.*?\})(?:\\?[ ,])?"
    r"(?:\s*\\(?:text|mathrm|mbox|textbf)\s*\{[^{}]*\}|\s*\\?%|\s*\u00b0"
    r"|\s*(?:mm|cm|km|ft|kg|mg|ml|mL|hrs?|min|mph|lbs?|oz|am|pm)|\s+[mgshlL]"
    r"|\s+[A-Za-z]{3,}[A-Za-z .,-]*)"
    r"(?:\^\{?[23]\}?|[\u00b2\u00b3])?"
)

#: Words that are a part of the number before them.
_SCALES = {
    "hundred": 100,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}
#: Words that make the number a part of a longer expression: an operation at once after it, or one
#: with its other number ("5 plus two", "5 less than x"). "25 feet squared" and "10 more than Tom"
#: are quantities.
_OPERATION = re.compile(
    rf"^(?:(?:{'|'.join(_SCALES)}) )*"
    r"(?:squared|cubed|factorial|sqrt|sin|cos|tan|log|ln|mod)\b"
    r"|\b(?:plus|minus|over|divided by|times|than) "
    r"(?:[a-z]|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|hundred)$"
)
#: A word; "hundred-dollar" is one.
_WORD = re.compile(r"(?<![\\A-Za-z-])[A-Za-z]+(?:-[A-Za-z]+)*")

#: Longer than any number worth reading here.
MAX_CHARACTERS = 200


def parse_number(text: str) -> Fraction | None:
    """The number that ``text`` is, exactly, or ``None`` where it is not just a number.

    Understands signs, thousands separators (``1,234``), decimals, ``3/4``, ``\\frac{3}{4}``,
    ``1\\frac{3}{4}``, ``1.2e3``, and takes no notice of math marks, currency signs and full stops
    around it. With a percent sign or a unit it is not just a number.
    """
    if len(text) > MAX_CHARACTERS:
        return None
    if text.isdigit() and text.isascii():
        return Fraction(int(text))
    text = _AFTER.sub("", _BEFORE.sub("", text))
    text = _SIGNED_CURRENCY.sub(r"\1", text)
    match = _NUMBER.fullmatch(text)
    if match is not None:
        value = _decimal(match["value"])
        if match["low"] is not None:
            low = _decimal(match["low"])
            if not low:
                return None
            value /= low
        elif match["exponent"] is not None:
            value *= Fraction(10) ** int(match["exponent"])
    else:
        match = _LATEX_FRACTION.fullmatch(text)
        if match is None:
            return None
        bottom = int(match["low"] or match["low1"])
        if not bottom:
            return None
        value = int(match["whole"] or 0) + Fraction(int(match["top"] or match["top1"]), bottom)
    return -value if match["sign"] in ("-", "\u2212") else value


def parse_quantity(text: str) -> Fraction | None:
    """The number in ``text``, which may carry a unit or a percent sign; ``None`` otherwise.

    ``5 million`` is 5,000,000; ``5 squared``, ``5 plus x`` and the like are no quantities.
    """
    value = parse_number(text)
    return _with_words(text)[0] if value is None else value


def parse_scaled(text: str) -> Fraction | None:
    """The number in ``text`` where a word multiplies it (``5 million``), ``None`` otherwise."""
    value, scale = _with_words(text)
    return value if scale > 1 else None


def _with_words(text: str) -> tuple[Fraction | None, int]:
    """The number before a unit (``None`` where it is something else), and what a word makes of it.

    The number is multiplied already.
    """
    text = text.strip(" .$\n")
    match = _UNIT.fullmatch(text) if len(text) <= MAX_CHARACTERS else None
    if match is None:
        return None, 1
    words = [word.lower() for word in _WORD.findall(text, match.end("number"))]
    if _OPERATION.search(" ".join(words)):
        return None, 1
    scale = 1
    for word in words:
        if word not in _SCALES:
            break
        scale *= _SCALES[word]
    value = parse_number(match["number"])
    return (None if value is None else value * scale), scale


def parse_decimal_comma(text: str) -> Fraction | None:
    """The number that ``text`` is where its comma is a decimal one (``1000,99``), or ``None``."""
    text = text.strip(" $")
    if len(text) > MAX_CHARACTERS or not _DECIMAL_COMMA.fullmatch(text):
        return None
    return Fraction(text.replace(",", "."))


def _decimal(text: str) -> Fraction:
    return Fraction(_SEPARATORS.sub("", text).rstrip(".") or "0")
