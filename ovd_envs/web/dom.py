"""A page as a tree: parsing what the web holds, and what stands in its head."""

from __future__ import annotations

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
    """Make formulas text, and take out what only a program reads (in place)."""
    for math in list(root.iter("math")):
        _replace(math, f" {math_text(math)} ")
    for script in list(root.iter("script", "style", "template")):
        kind = (script.get("type") or "").partition(";")[0].strip()
        _replace(script, f" {script.text or ''} " if kind == "math/tex" else "")
    whole = sum(map(len, root.itertext()))
    for element in list(root.iterfind(".//*[@aria-hidden='true']")):
        # Copies for the eye of what is there as text too (formulas, icons). A page that is under
        # a dialog is "hidden" as a whole, and stays.
        if 2 * sum(map(len, element.itertext())) <= whole:
            _replace(element, "")


def _replace(element: HtmlElement, text: str) -> None:
    """Put plain text in the place of ``element``; its tail stays."""
    parent = element.getparent()
    if parent is None:
        return
    text += element.tail or ""
    before = element.getprevious()
    if before is not None:
        before.tail = (before.tail or "") + text
    else:
        parent.text = (parent.text or "") + text
    parent.remove(element)
