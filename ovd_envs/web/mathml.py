"""MathML as text, so that a formula on a page can be read."""

from __future__ import annotations

import re

from lxml import etree
from lxml.html import HtmlElement

_STYLE = re.compile(r"^\{\\(?:display|text)style\s*(.*)\}$", re.DOTALL)
_INVISIBLE = str.maketrans("", "", "\u2061\u2062\u2063\u2064")


def math_text(math: HtmlElement) -> str:
    """A ``<math>`` element in one line: its TeX where the page has it, else ``x^2``, ``(a)/(b)``.

    Without recursion: pages nest formulas as deep as they like.
    """
    for annotation in math.iter("annotation"):
        if annotation.get("encoding") == "application/x-tex" and annotation.text:
            return _tex(annotation.text)
    if math.get("alttext"):
        return _tex(math.get("alttext", ""))
    parts: list[list[str]] = [[]]
    for event, element in etree.iterwalk(math, events=("start", "end")):
        if event == "start":
            parts.append([(element.text or "").strip()] if isinstance(element.tag, str) else [])
            continue
        inner = [part for part in parts.pop() if part]
        parts[-1] += [_combine(element.tag, inner), (element.tail or "").strip()]
    return " ".join(" ".join(parts[0][:1]).translate(_INVISIBLE).split())


def _combine(tag: object, parts: list[str]) -> str:
    """The text of one element from those of its children."""
    match tag, parts:
        case (("annotation" | "annotation-xml"), _):
            return ""
        case (("msup" | "mover"), [base, script]):
            return f"{base}^{_group(script)}"
        case (("msub" | "munder"), [base, script]):
            return f"{base}_{_group(script)}"
        case (("msubsup" | "munderover"), [base, low, high]):
            return f"{base}_{_group(low)}^{_group(high)}"
        case "mfrac", [above, below]:
            return f"{_group(above)}/{_group(below)}"
        case "msqrt", _:
            return f"√({' '.join(parts)})"
        case "mroot", [base, index]:
            return f"{_group(base)}^(1/{index})"
    return " ".join(parts)


def _group(text: str) -> str:
    return text if len(text) == 1 or text.isalnum() else f"({text})"


def _tex(text: str) -> str:
    text = " ".join(text.split())
    found = _STYLE.match(text)
    return found[1].strip() if found else text
