"""What travels over Search-R1's ``/retrieve``: results as documents, documents as results.

A document is an object with "contents": the title in double quotes, a line feed, and the text.
With scores a result is ``{"document": {...}, "score": number}``, without them the document alone.
The shapes are those of ``search_r1/search`` in github.com/PeterGriffinJin/Search-R1 and of the
search example in github.com/NovaSky-AI/SkyRL, read in 2026.
"""

from __future__ import annotations

import math
from typing import Any, TypeGuard

from ovd_envs.search.protocol import SearchResult
from ovd_envs.stable import stable_hash


class Nonsense(ValueError):
    """What is wrong with a reply, and where."""


def to_document(result: SearchResult) -> dict[str, Any]:
    """The document of a result: "id", "title", "contents" and, where there is one, "url"."""
    # Readers take the first line for the title.
    title = " ".join(result.title.split())
    document = {"id": result.id, "title": result.title, "contents": f'"{title}"\n{result.text}'}
    return document | ({"url": result.url} if result.url else {})


def to_items(results: list[SearchResult], *, scores: bool) -> list[dict[str, Any]]:
    """The results of one query as the server sends them."""
    documents = [to_document(result) for result in results]
    if not scores:
        return documents
    return [
        {"document": document, "score": result.score}
        for document, result in zip(documents, results, strict=True)
    ]


def from_reply(reply: object, queries: int) -> list[list[SearchResult]]:
    """The results in a reply to ``queries`` queries.

    A document without "id" gets one made from its text; one without a score has score 0. Raises
    ``Nonsense`` where a list is missing or a value has the wrong type.
    """
    if not isinstance(reply, dict) or "result" not in reply:
        raise Nonsense(f'expected an object with "result", got {_shown(reply)}')
    lists = reply["result"]
    if not isinstance(lists, list):
        raise Nonsense(f"result: expected a list of lists, got {_shown(lists)}")
    if len(lists) != queries:
        raise Nonsense(f"result: expected {queries} lists, one a query, got {len(lists)}")
    return [_results(items, f"result[{number}]") for number, items in enumerate(lists)]


def _results(items: object, where: str) -> list[SearchResult]:
    if not isinstance(items, list):
        raise Nonsense(f"{where}: expected a list of documents, got {_shown(items)}")
    return [_result(item, f"{where}[{place}]") for place, item in enumerate(items)]


def _result(item: object, where: str) -> SearchResult:
    if not isinstance(item, dict):
        raise Nonsense(f"{where}: expected a document, got {_shown(item)}")
    document, score = item, item.get("score")
    if "document" in item:
        document = item["document"]
        if not isinstance(document, dict):
            raise Nonsense(f"{where}.document: expected an object, got {_shown(document)}")
    if score is None:  # absent or null, as an id may be
        score = 0.0
    if not _is_finite(score):
        raise Nonsense(f"{where}.score: expected a finite number, got {_shown(score)}")
    title, text = _title_and_text(document, where)
    given = document.get("id")
    if given is not None and (isinstance(given, bool) or not isinstance(given, str | int)):
        raise Nonsense(f"{where}.id: expected a text or a whole number, got {_shown(given)}")
    identity = f"{stable_hash(f'{title}|{text}'):016x}" if given is None else str(given)
    url = document.get("url")
    return SearchResult(identity, title, text, url if isinstance(url, str) else "", float(score))


def _title_and_text(document: dict[str, Any], where: str) -> tuple[str, str]:
    contents, title, text = (document.get(name) for name in ("contents", "title", "text"))
    for name, value in (("contents", contents), ("title", title), ("text", text)):
        if value is not None and not isinstance(value, str):
            raise Nonsense(f"{where}.{name}: expected a text, got {_shown(value)}")
    if contents is None:
        if text is None:
            raise Nonsense(f'{where}: expected a document with "contents", got {_shown(document)}')
        return title or "", text
    head, line_feed, rest = contents.partition("\n")
    if not line_feed:
        # A corpus without titles; or a title without a text, which only the quotes tell.
        return (title or "", head) if not _quoted(head) else (title or head[1:-1], "")
    if title is None:
        title = head[1:-1] if _quoted(head) else head
    return title, rest if text is None else text


def _is_finite(value: object) -> TypeGuard[float]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond every float
        return False


def _quoted(line: str) -> bool:
    return len(line) >= 2 and line[0] == line[-1] == '"'


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return f"an object with {', '.join(map(repr, list(value)[:5])) or 'nothing'}"
    shown = repr(value) if isinstance(value, str | int | float) else type(value).__name__
    return shown if len(shown) <= 60 else shown[:57] + "..."
