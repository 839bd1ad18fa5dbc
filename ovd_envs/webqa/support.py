"""The documents that a task of question answering names as its support."""

from __future__ import annotations

from typing import Any


def named_documents(documents: Any) -> list[str]:
    """What a task names: a list of texts or numbers, or just one; none where it is empty."""
    # A corpus takes numbers as ids, and knows such a document by their text.
    if isinstance(documents, str | int):
        documents = [documents]
    listed = documents if isinstance(documents, list | tuple) else ()
    return [name for name in map(str, listed) if name.strip()]  # an empty cell names none
