"""Dense search on this machine: the documents whose vectors are nearest, exactly."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ovd_envs.errors import OVDError
from ovd_envs.jsonl import reason_of, write_atomic
from ovd_envs.search.building import locked
from ovd_envs.search.corpus import Document
from ovd_envs.search.documents import DocumentFile, damaged, numbered
from ovd_envs.search.encoders import Encode, Encoder, encoded, make_encoder
from ovd_envs.search.manifest import Manifest, Vectors
from ovd_envs.search.protocol import SearchError, SearchResult

#: The part of an index folder that holds the vectors: a row a document, unit length, float16.
FILE = "vectors.npy"

#: The vectors so far of an index whose encoding was stopped, and whose they are.
_PARTIAL, _PARTIAL_NOTE = "vectors.partial", "vectors.partial.json"

#: Documents between two writes, and in one call of the encoder.
_CHUNK = 1024

#: Vectors and queries that are multiplied at a time: 64 MB of scores at most.
_BLOCK, _QUERIES = 131_072, 128

#: Two ways of adding up a product of unit vectors differ by less.
_ROUNDING = 1e-5


class DenseEngine:
    """Finds documents by the cosine of their vectors with the query's: all of them, no shortcut.

    Equal scores are in the order of the corpus. A score does not hang on the other queries of a
    batch, as far as the encoder's vectors do not. May be used from several threads where the
    encoder may.

    Args:
        folder: an index that ``ovd index --encoder`` or ``add_vectors`` made.
        encoder: the encoder that made it, by default found by its name; a plain function of texts
            to vectors is taken for queries.

    Raises ``SearchError`` where there is no whole index with vectors.
    """

    def __init__(self, folder: str | Path, encoder: str | Encoder | Encode | None = None) -> None:
        folder = Path(folder)
        manifest = Manifest.read(folder)
        if manifest.vectors is None:
            raise SearchError(
                f"{folder}: the index has no vectors; "
                f"make them: ovd index CORPUS --out {folder} --encoder NAME"
            )
        self.name = f"dense:{folder.name}"
        self._documents: Sequence[Document] = DocumentFile(folder, manifest.documents)
        try:
            self._vectors: NDArray[np.float16] = np.load(folder / FILE, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise SearchError(
                f"{folder}: the index is damaged ({error}); build it again"
            ) from error
        if self._vectors.shape != (manifest.documents, manifest.vectors.dimensions):
            raise damaged(folder, f"{FILE} is not its own")
        if encoder is None:
            encoder = manifest.vectors.encoder
        self._encode = encoder if callable(encoder) else make_encoder(encoder).queries

    @classmethod
    def from_documents(
        cls, documents: Iterable[Document], encoder: Encoder | Encode, *, name: str = "dense"
    ) -> DenseEngine:
        """An engine over documents in memory. Raises ``DuplicateId``, and what encoding raises."""
        engine = cls.__new__(cls)
        engine.name = name
        encoder = Encoder.of(encoder) if callable(encoder) else encoder
        found = numbered(documents)
        engine._documents = found
        engine._encode = encoder.queries
        parts = [np.empty((0, 1), np.float16)] if not found else []
        for start in range(0, len(found), _CHUNK):
            texts = _texts(found[start : start + _CHUNK])
            parts.append(encoded(encoder.passages, texts, encoder.name).astype(np.float16))
        engine._vectors = np.concatenate(parts)
        return engine

    def search(self, queries: Sequence[str], k: int) -> list[list[SearchResult]]:
        """For each query, in order, at most ``k`` results, the best first."""
        if k < 1:
            raise OVDError(f"k: expected at least 1, got {k}")
        if not queries or not len(self._documents):
            return [[] for _ in queries]
        k = min(k, len(self._documents))
        found: list[list[SearchResult]] = []
        for start in range(0, len(queries), _QUERIES):
            batch = encoded(self._encode, queries[start : start + _QUERIES], self.name)
            if batch.shape[1] != self._vectors.shape[1]:
                raise OVDError(
                    f"{self.name}: expected vectors of {self._vectors.shape[1]} numbers, "
                    f"the encoder gave {batch.shape[1]}"
                )
            found += [self._results(best) for best in self._nearest(batch, k)]
        return found

    def _results(self, best: Iterable[tuple[float, int]]) -> list[SearchResult]:
        results = []
        for score, number in best:
            document = self._documents[number]
            results.append(
                SearchResult(document.id, document.title, document.text, document.url, score)
            )
        return results

    def _nearest(self, queries: NDArray[np.float32], k: int) -> list[list[tuple[float, int]]]:
        """Scores and numbers of the best ``k`` documents of each query."""
        candidates: list[NDArray[np.int64]] = [np.empty(0, np.int64)] * len(queries)
        scores: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(queries)
        for start in range(0, len(self._vectors), _BLOCK):
            block = self._vectors[start : start + _BLOCK].astype(np.float32)
            for row, products in enumerate(queries @ block.T):
                both = np.concatenate([scores[row], products])
                numbers = np.concatenate(
                    [candidates[row], np.arange(start, start + len(block), dtype=np.int64)]
                )
                # All that may be among the best: the products' last bits hang on the batch.
                cut = min(k, len(both))
                least = np.partition(both, len(both) - cut)[len(both) - cut] - _ROUNDING
                keep = both >= least
                scores[row], candidates[row] = both[keep], numbers[keep]
        return [self._exact(q, c, k) for q, c in zip(queries, candidates, strict=True)]

    def _exact(
        self, query: NDArray[np.float32], numbers: NDArray[np.int64], k: int
    ) -> list[tuple[float, int]]:
        """The best of ``numbers`` by products that are added up in one order always."""
        products = self._vectors[numbers].astype(np.float64) * query.astype(np.float64)
        exact = products.sum(axis=1)
        order = np.lexsort((numbers, -exact))[:k]
        return [(float(exact[n]), int(numbers[n])) for n in order]


def add_vectors(
    folder: str | Path,
    encoder: str | Encoder,
    *,
    progress: Callable[[int], None] | None = None,
) -> Manifest:
    """Encode the documents of the index ``folder`` and keep the vectors in it.

    A stop at any moment loses at most ``_CHUNK`` vectors: the next call with the same encoder goes
    on. Vectors of another encoder are replaced.

    Args:
        folder: an index; BM25 in it can be used meanwhile.
        encoder: its name is kept, to find it again.
        progress: called with the number of documents so far.

    Raises ``SearchError`` where there is no whole index, ``OVDError`` where the encoder gives no
    vectors or the disk is full.
    """
    folder = Path(folder)
    encoder = make_encoder(encoder)
    with locked(folder):
        manifest = Manifest.read(folder)
        documents = DocumentFile(folder, manifest.documents)
        try:
            vectors = Vectors(encoder.name, _encode_rest(folder, documents, encoder, progress))
            if manifest.vectors not in (None, vectors):
                # A stop between the two files must not leave vectors under another encoder's name.
                replace(manifest, vectors=None, wanted=encoder.name).write(folder)
            os.replace(folder / _PARTIAL, folder / FILE)
            (folder / _PARTIAL_NOTE).unlink()
        except OSError as error:
            raise OVDError(f"{folder}: cannot be written ({reason_of(error)})") from error
        manifest = replace(manifest, vectors=vectors, wanted=None)
        manifest.write(folder)
    return manifest


def _encode_rest(
    folder: Path,
    documents: Sequence[Document],
    encoder: Encoder,
    progress: Callable[[int], None] | None,
) -> int:
    """Bring the partial file to its full length; returns the number of dimensions."""
    probe = encoded(encoder.passages, _texts(documents[:1]), encoder.name)
    dimensions = int(probe.shape[1])
    header = _header(len(documents), dimensions)
    note = {"encoder": encoder.name, "documents": len(documents), "dimensions": dimensions}
    partial = folder / _PARTIAL
    if not partial.exists() or _read_note(folder) != note:
        partial.write_bytes(header)
        write_atomic(folder / _PARTIAL_NOTE, json.dumps(note))
    row_bytes = 2 * dimensions
    with partial.open("r+b") as handle:
        done = max(0, handle.seek(0, os.SEEK_END) - len(header)) // row_bytes
        handle.truncate(len(header) + done * row_bytes)
        handle.seek(0)
        handle.write(header)
        handle.seek(0, os.SEEK_END)
        for start in range(done, len(documents), _CHUNK):
            texts = _texts(documents[start : start + _CHUNK])
            vectors = encoded(encoder.passages, texts, encoder.name)
            if vectors.shape[1] != dimensions:
                raise OVDError(
                    f"{encoder.name}: vectors of {dimensions} numbers, then of {vectors.shape[1]}"
                )
            handle.write(vectors.astype("<f2").tobytes())
            handle.flush()
            if progress is not None:
                progress(start + len(texts))
        os.fsync(handle.fileno())
    return dimensions


def _read_note(folder: Path) -> object:
    try:
        return json.loads((folder / _PARTIAL_NOTE).read_text())
    except (OSError, ValueError):
        return None


def _header(rows: int, columns: int) -> bytes:
    """The beginning of an .npy file of float16."""
    stream = io.BytesIO()
    shape = {"descr": "<f2", "fortran_order": False, "shape": (rows, columns)}
    np.lib.format.write_array_header_1_0(stream, shape)
    return stream.getvalue()


def _texts(documents: Iterable[Document]) -> list[str]:
    """What is encoded of each document."""
    return [f"{d.title}\n{d.text}" if d.title else d.text for d in documents]


__all__ = ["DenseEngine", "add_vectors"]
