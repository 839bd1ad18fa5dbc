"""A page as a tree: parsing what the web holds, and what stands in its head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lxml import etree
from lxml.html import HtmlElement, HTMLParser, document_fromstring

from ovd_envs.web.mathml import math_text


def parse(source: str) -> HtmlElement | None:
    """The tree of HTML ``source``; ``None`` where there is nothing to parse.

    A parser of its own for each page (they are not for several threads), without libxml2's limit
    of 255 nested elements, behind which it silently drops the rest of the page.
    """
    parser = HTMLParser(encoding="utf-8", huge_tree=True, remove_comments=True, remove_pis=True)
    try:
        root = document_fromstring(source.encode("utf-8", "replace"), parser=parser)
    except (etree.ParserError, etree.XMLSyntaxError, ValueError, AssertionError):
        return None
    return root


def depth(root: HtmlElement) -> int:
    """How deep the elements of ``root`` are nested."""
    deepest = level = 0
    for event, _ in etree.iterwalk(root, events=("start", "end")):
        level += 1 if event == "start" else -1
        deepest = max(deepest, level)
    return deepest


def title_of(root: HtmlElement) -> str:
    """The title that the page gives for sharing, else of its window, else its first heading."""
    for meta in root.iter("meta"):
        if meta.get("property") in ("og:title", "twitter:title") and meta.get("content"):
            return " ".join(meta.get("content", "").split())
    for name in ("title", "h1"):
        for element in root.iter(name):
            if element.getparent().tag != "svg":
                words = " ".join("".join(element.itertext()).split())
                if words:
                    return words
    return ""


def json_ld_scripts(root: HtmlElement) -> list[str]:
    """What stands in the page's JSON-LD scripts."""
    return [
        script.text
        for script in root.iter("script")
        if (script.get("type") or "").strip().lower() == "application/ld+json" and script.text
    ]


def make_readable(root: HtmlElement) -> None:
    """Make formulas text, and take out what only a program reads (in place).

    Linear in the size of ``root``, however its elements are nested.
    """
    _replace({math: f" {math_text(math)} " for math in _outermost(root, "math")})
    scripts = {}
    for script in root.iter("script", "style", "template"):
        kind = (script.get("type") or "").partition(";")[0].strip()
        scripts[script] = f" {script.text or ''} " if kind == "math/tex" else ""
    _replace(scripts)
    _replace(dict.fromkeys(_hidden_copies(root), ""))


def _outermost(root: HtmlElement, tag: str) -> Iterator[HtmlElement]:
    """The elements ``tag`` that are in no other one, in order."""
    walk = etree.iterwalk(root, events=("start",), tag=tag)
    for _, element in walk:
        yield element
        walk.skip_subtree()


def _hidden_copies(root: HtmlElement) -> list[HtmlElement]:
    """Copies for the eye of what is there as text too (formulas, icons), in order.

    A page that is under a dialog is "hidden" as a whole, and is none.
    """
    length = 0
    sizes: dict[HtmlElement, int] = {}
    for event, element in etree.iterwalk(root, events=("start", "end")):
        hidden = element.get("aria-hidden") == "true"
        if event == "start":
            if hidden:
                sizes[element] = -length
            length += len(element.text or "")
        else:
            if hidden:
                sizes[element] += length
            length += len(element.tail or "")
    return [element for element, size in sizes.items() if 2 * size <= length]


def _replace(texts: Mapping[HtmlElement, str]) -> None:
    """Put plain text in the place of elements, which come in order; their tails stay.

    Neighbours go at once: a text that each adds to is copied as often as there are of them.
    """
    for first in texts:
        parent, before = first.getparent(), first.getprevious()
        if parent is None:  # the root, or gone with its neighbour
            continue
        pieces: list[str] = []
        element = first
        while element is not None and element in texts:
            pieces += (texts[element], element.tail or "")
            following = element.getnext()
            parent.remove(element)
            element = following
        joined = "".join(pieces)
        if before is not None:
            before.tail = (before.tail or "") + joined
        else:
            parent.text = (parent.text or "") + joined
