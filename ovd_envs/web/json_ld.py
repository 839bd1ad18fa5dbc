"""What a page says of itself in JSON-LD (schema.org): the article's body and headline."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator

_TAG = re.compile(r"<[a-zA-Z/!][^<>]*>")
_BREAK = re.compile(r"</(?:p|div|li|h\d)>|<br\s*/?>", re.I)
#: JSON-LD is a few hundred objects; a page that nests or repeats more is not read to its end.
_MOST_OBJECTS = 20_000


def article(scripts: Iterable[str]) -> tuple[str, str]:
    """(headline, body) of the longest ``articleBody`` in ``scripts``, plain text.

    ``scripts``: what stands in ``<script type="application/ld+json">``. Empty texts where there
    is none; what is not JSON is passed over, as browsers do.
    """
    best = ("", "")
    for script in scripts:
        try:
            # Line feeds stand unescaped in the strings of many real pages.
            data = json.loads(script.strip().rstrip(";"), strict=False)
        except (ValueError, RecursionError):
            continue
        for node in _objects(data):
            body = node.get("articleBody")
            if isinstance(body, str) and len(body) > len(best[1]):
                headline = node.get("headline")
                best = (headline if isinstance(headline, str) else "", body)
    return _plain(best[0]), _plain(best[1])


def _objects(data: object) -> Iterator[dict[str, object]]:
    waiting = [data]
    for _ in range(_MOST_OBJECTS):
        if not waiting:
            return
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _plain(text: str) -> str:
    """Without the markup, escaped or not, that some publishers put into the JSON."""
    text = _BREAK.sub("\n", html.unescape(text))
    return html.unescape(_TAG.sub(" ", text)).strip()
