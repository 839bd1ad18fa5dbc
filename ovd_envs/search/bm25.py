"""BM25 on this machine, by tantivy: an index of millions of documents, opened in an instant."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tantivy

from ovd_envs.errors import OVDError
from ovd_envs.search.analysis import analyzer, composed
from ovd_envs.search.corpus import Document
from ovd_envs.search.documents import DocumentFile, damaged, numbered
from ovd_envs.search.manifest import Manifest
from ovd_envs.search.protocol import SearchError, SearchResult

#: The part of an index folder that tantivy keeps.
FOLDER = "bm25"

_TEXT, _NUMBER, _ANALYZER = "text", "number", "ovd"

#: Bytes of memory that indexing may use, beside the corpus row at hand.
_MEMORY = 128_000_000
#: Threads that index while ours reads; more only wait for it.
_WRITERS = 2

#: Documents that are had beyond those asked for, in case they score as much; they cost nothing.
_TIED = 200

#: Distinct words of a query that count, the first ones.
MOST_WORDS = 1024

#: From so many documents on, a query takes long enough for threads to pay.
_MANY = 50_000


class BM25Engine:
    """Finds documents by their words: BM25 with k1 1.2 and b 0.75, which tantivy does not vary.

    Words are lower-cased, stemmed and, in English, freed of accents; the words of a title count
    twice. A query is read as words alone, whatever it holds: its stop words are left out unless it
    has no others, a word that it repeats counts as often, and of more than ``MOST_WORDS`` different
    words the first are taken. Equal scores are in the order of the corpus.

    May be used from several threads; a batch of queries uses the cores by itself.

    Args:
        folder: an index that ``ovd index`` or ``build_index`` made.

    Raises ``SearchError`` where there is no whole index.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        manifest = Manifest.read(folder)
        self.name = f"bm25:{folder.name}"
        documents = DocumentFile(folder, manifest.documents)
        try:
            index = tantivy.Index.open(str(folder / FOLDER))
        except (ValueError, OSError) as error:
            raise SearchError(
                f"{folder}: the index is damaged ({error}); build it again"
            ) from error
        self._use(index, documents, manifest.language)
        if self._searcher.num_docs != manifest.documents:
            found = f"{self._searcher.num_docs} of {manifest.documents} documents"
            raise damaged(folder, found)

    @classmethod
    def from_documents(
        cls, documents: Iterable[Document], *, language: str = "english", name: str = "bm25"
    ) -> BM25Engine:
        """An engine over documents in memory, for corpora of up to some ten thousand.

        Raises ``DuplicateId`` where two documents have the same id.
        """
        engine = cls.__new__(cls)
        engine.name = name
        found = numbered(documents)
        writer = BM25Writer(None, language, memory=15_000_000, threads=1)
        for number, document in enumerate(found):
            writer.add(number, document)
        engine._use(writer.finish(), found, language)
        return engine

    def search(self, queries: Sequence[str], k: int) -> list[list[SearchResult]]:
        """For each query, in order, at most ``k`` results, the best first."""
        if k < 1:
            raise OVDError(f"k: expected at least 1, got {k}")
        if len(queries) < 2 or len(self._documents) < _MANY:
            return [self._search(query, k) for query in queries]
        with ThreadPoolExecutor(min(len(queries), os.cpu_count() or 1)) as pool:
            return list(pool.map(lambda query: self._search(query, k), queries))

    def _use(self, index: Any, documents: Sequence[Document], language: str) -> None:
        self._documents = documents
        self._analyzer = analyzer(language)
        # Stop words cost half the time of a query, and find nothing (docs/search.md).
        self._query_analyzer = analyzer(language, stop_words=False)
        self._schema = index.schema
        self._searcher = index.searcher()

    def _search(self, query: str, k: int) -> list[SearchResult]:
        results = []
        for score, number in self._hits(self._query(query), k):
            document = self._documents[number]
            results.append(
                SearchResult(document.id, document.title, document.text, document.url, score)
            )
        return results

    def _query(self, text: str) -> Any:
        # Not tantivy's parser: a question has no operators, and nothing in it is an error.
        text = composed(text)
        counts = Counter(self._query_analyzer.analyze(text) or self._analyzer.analyze(text))
        clauses = []
        for word, count in list(counts.items())[:MOST_WORDS]:
            clause = tantivy.Query.term_query(self._schema, _TEXT, word, "freq")
            if count > 1:
                clause = tantivy.Query.boost_query(clause, float(count))
            clauses.append((tantivy.Occur.Should, clause))
        return tantivy.Query.boolean_query(clauses)

    def _hits(self, query: Any, k: int) -> list[tuple[float, int]]:
        """Scores and numbers of the best ``k`` documents; equal scores by number.

        tantivy orders equal scores by their place in the index, which hangs on the threads that
        built it. So all documents are had that score as much as the last one taken.
        """
        all_documents = len(self._documents)
        k = min(k, all_documents)
        wanted = k + _TIED
        while True:
            hits = self._searcher.search(query, wanted, count=False).hits if k else []
            if len(hits) < wanted or wanted >= all_documents or hits[-1][0] < hits[k - 1][0]:
                break
            wanted *= 10
        numbers = self._searcher.fast_field_values(_NUMBER, [address for _, address in hits])
        found = [(float(score), n) for (score, _), n in zip(hits, numbers, strict=True)]
        return sorted(found, key=lambda hit: (-hit[0], hit[1]))[:k]


class BM25Writer:
    """Indexes documents as they come.

    Args:
        folder: an empty folder, or None for an index in memory.
        language: see ``ovd_envs.search.analysis``.
        memory: bytes that may be used before a part of the index is written.
        threads: that index; the order of results does not hang on it.
    """

    def __init__(
        self,
        folder: Path | None,
        language: str,
        *,
        memory: int = _MEMORY,
        threads: int = _WRITERS,
    ) -> None:
        schema = tantivy.SchemaBuilder()
        schema.add_text_field(_TEXT, tokenizer_name=_ANALYZER, index_option="freq")
        schema.add_integer_field(_NUMBER, fast=True)
        words = analyzer(language)
        self._index = tantivy.Index(schema.build(), None if folder is None else str(folder))
        self._index.register_tokenizer(_ANALYZER, words)
        self._writer = self._index.writer(memory, threads)

    def add(self, number: int, document: Document) -> None:
        """Index ``document`` under ``number``."""
        row = tantivy.Document()
        # Title twice: measured in docs/search.md.
        row.add_text(_TEXT, composed(f"{document.title}\n{document.title}\n{document.text}"))
        row.add_integer(_NUMBER, number)
        try:
            self._writer.add_document(row)
        except ValueError as error:
            raise _unwritable(error) from error

    def finish(self) -> Any:
        """Put everything on the disk; returns the index."""
        try:
            self._writer.commit()
            self._writer.wait_merging_threads()
        except ValueError as error:
            raise _unwritable(error) from error
        self._index.reload()
        return self._index

    def abandon(self) -> None:
        """Let the threads of an index that will not be finished end, so that no file comes more."""
        with contextlib.suppress(ValueError, RuntimeError):  # they have ended
            self._writer.wait_merging_threads()


def _unwritable(error: ValueError) -> SearchError:
    """Tantivy's threads end at a disk error, and it says little of it."""
    return SearchError(f"the index cannot be written (is the disk full?): {error}")


__all__ = ["BM25Engine", "BM25Writer"]
