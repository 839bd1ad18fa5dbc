"""Student text as tokens: numbers, operators, words, equal signs, and what ends a formula."""

from __future__ import annotations

import re
from typing import NamedTuple

from teachers.arithmetic import CLOSE, NUMBER, OPEN, OPERATOR

WORD = "word"
EQUALS = "equals"
#: "is", "makes", "gives": an equal sign only where arithmetic stands on both sides.
VERB = "verb"
#: Ends a formula: a full stop, a comma, a line, another relation.
BREAK = "break"
#: A sign that is not understood ("%", "√"): no formula that touches it is judged.
UNKNOWN = "unknown"
#: A list's dash at the start of a line, which may be a minus sign after all.
BULLET = "\u2022"


class Token(NamedTuple):
    """A token and where it stands in the prepared text."""

    kind: str
    text: str
    start: int
    end: int


_SIGNS = str.maketrans(
    {
        "\u2212": "-", "\u2013": "-", "\ufe63": "-", "\uff0d": "-", "\u2010": "-", "\u2011": "-",
        "\u00d7": "*", "\u22c5": "*", "\u00b7": "*", "\u2217": "*", "\u2715": "*", "\u2716": "*",
        "\u00f7": "/", "\u2215": "/", "\u2044": "/", "\uff1d": "=", "\uff0b": "+",
        "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u2007": " ", "\u200b": " ",
    }
)  # fmt: skip

_TOKEN = re.compile(
    r"""
    (?P<number>[0-9]{1,3}(?:,[0-9]{3}){1,12}(?![0-9])(?:\.[0-9]+)? | [0-9]+(?:\.[0-9]+)? | \.[0-9]+)
    |(?P<word>[^\W\d_]+(?:['\u2019][^\W\d_]+)*)
    |(?P<relation>[<>=!\u2260\u2248\u2264\u2265~\u2261]{0,3}=[<>=]* | [-=]{1,4}> | [<>]+)
    |(?P<operator>\*\*|[-+*/^])
    |(?P<open>[(\[{])
    |(?P<close>[)\]}])
    |(?P<blank>[ \t\r$`&\f\v]+)
    |(?P<line>\n\s*)
    |(?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)

_BREAKS = frozenset('.,;:?!"\u201c\u201d\u2026\u2014\u2022\u2192\u21d2\u2248\u2260\u2264\u2265')

_COMMANDS = {
    "times": "*", "cdot": "*", "ast": "*", "div": "/", "left": "", "right": "", "boxed": "",
    "fbox": "", "displaystyle": "", "quad": ";", "qquad": ";", "approx": "\u2248", "ne": "\u2260",
    "neq": "\u2260", "leq": "\u2264", "le": "\u2264", "geq": "\u2265", "ge": "\u2265",
    "implies": ";", "Rightarrow": ";", "Longrightarrow": ";", "rightarrow": ";", "to": ";",
    "therefore": ";", "lbrack": "(", "rbrack": ")", "lparen": "(",
    "rparen": ")", ",": "", ";": "", "!": "", ":": "", " ": "", "(": "", ")": "", "$": "",
    "[": "\n", "]": "\n", "{": "(", "}": ")", "\\": "\n", "%": "%",
}  # fmt: skip
_COMMAND = re.compile(r"\\([A-Za-z]+|.)", re.DOTALL)
_FRACTION = re.compile(r"([0-9)}]?\s?)\\[dtc]?frac\s?\{([^{}\\]{0,200})\}\s?\{([^{}\\]{0,200})\}")
_IN_WORDS = re.compile(
    r"\\(?:text|mathrm|mbox|textbf|mathbf|textit|rm)[a-z]{0,9}\s?\{([^{}\\]{0,200})\}"
)
_POWER = re.compile(r"(?<=[0-9)])\s?\*\*\s?(?=[0-9(-])")
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\s?\{[^{}\\]{0,40}\}")
_ITEM = re.compile(r"(?m)^[ \t]{0,20}(?:([-*+])[ \t]+(?=\S)|\(?[0-9]{1,3}[.)][ \t]+(?=[\w($]))")

_NAMED_OPERATORS = {"plus": "+", "minus": "-", "times": "*", "x": "*", "X": "*"}
#: Between two numbers without a blank: "12:30", "1.2.3", "160,0000".
_WITHIN_NUMBERS = frozenset(".,:")
_VERBS = frozenset(("is", "makes", "gives"))


def tokens(text: str) -> list[Token]:
    """The tokens of ``text``. Linear in its length."""
    if not text.isascii():
        text = text.translate(_SIGNS)
    if "\\" in text:
        text = _plain(text)
    if "**" in text:
        text = _POWER.sub("^", text).replace("**", "")
    text = _ITEM.sub(lambda match: BULLET if match[1] else ";", text)
    return _named(_scan(text))


def _plain(text: str) -> str:
    """TeX as plain arithmetic; a command that is not understood becomes the unknown sign."""
    text = text.replace(",\\!", ",").replace("{,}", ",")
    text = _ENVIRONMENT.sub(";", text)
    text = _IN_WORDS.sub(r" \1 ", text)
    for _ in range(3):  # fractions within fractions, from the inside out
        text, count = _FRACTION.subn(_fraction, text)
        if not count:
            break
    return _COMMAND.sub(lambda m: " " + _COMMANDS.get(m.group(1), "\u00a7") + " ", text)


def _fraction(match: re.Match[str]) -> str:
    # "3\frac{1}{2}" may be a mixed number or a product: not judged.
    before, above, below = match.groups()
    mixed = "\u00a7" if before.strip() else ""
    return f"{before}{mixed} (({above})/({below})) "


def _scan(text: str) -> list[Token]:
    found: list[Token] = []
    for match in _TOKEN.finditer(text):
        name = match.lastgroup
        value = match.group()
        if name == "blank":
            continue
        if name == "number":
            kind = NUMBER
        elif name == "word":
            kind = WORD
        elif name == "operator":
            kind = OPERATOR
        elif name == "relation":
            kind = EQUALS if value in ("=", "==") else BREAK
        elif name == "open":
            kind = OPEN
        elif name == "close":
            kind = CLOSE
        elif name == "line" or value in _BREAKS:
            kind = BREAK
        else:
            kind = UNKNOWN
        found.append(Token(kind, value, match.start(), match.end()))
    return found


def _named(found: list[Token]) -> list[Token]:
    """Operators and equal signs written as words, and lines that go on after a line break."""
    result: list[Token] = []
    last = len(found) - 1
    for i, token in enumerate(found):
        kind, text = token.kind, token.text
        if kind == WORD:
            lower = text.lower()
            operator = _NAMED_OPERATORS.get(lower)
            if operator is not None:
                if (
                    0 < i < last
                    and found[i - 1].kind in (NUMBER, CLOSE, WORD)
                    and found[i + 1].kind in (NUMBER, OPEN)
                    and not (lower == "x" and found[i - 1].kind == WORD)
                ):
                    token = Token(OPERATOR, operator, token.start, token.end)
            elif lower in ("equals", "equal"):
                if lower == "equal" and result and result[-1].text.lower() in ("is", "are"):
                    result.pop()
                token = Token(EQUALS, lower, token.start, token.end)
            elif lower == "to" and result and result[-1].kind == EQUALS:
                continue
            elif lower in _VERBS:
                token = Token(VERB, text, token.start, token.end)
            elif lower == "by" and 0 < i < last and found[i - 1].kind == WORD:
                named = {"divided": "/", "multiplied": "*"}.get(found[i - 1].text.lower())
                if named and found[i + 1].kind in (NUMBER, OPEN) and result:
                    result[-1] = Token(OPERATOR, named, token.start, token.end)
                    continue
        elif kind == BREAK and text.startswith("\n"):
            before = result[-1].kind if result else BREAK
            after = found[i + 1].kind if i < last else BREAK
            if after == EQUALS or before in (EQUALS, OPERATOR):
                continue
        elif kind == OPERATOR and text == "**":
            token = Token(OPERATOR, "^", token.start, token.end)
        elif kind == BREAK and text in _WITHIN_NUMBERS and 0 < i < last:
            left, right = found[i - 1], found[i + 1]
            touching = left.end == token.start and token.end == right.start
            if touching and left.kind == right.kind == NUMBER:
                token = Token(UNKNOWN, text, token.start, token.end)
        result.append(token)
    return result
