"""The documents of an index on the disk, found by their number in no time."""

from __future__ import annotations

import json
import mmap
import os
from array import array
from collections.abc import Iterable, Sequence
from json.encoder import encode_basestring as quoted
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from ovd_envs.errors import OVDError
from ovd_envs.search.corpus import Document
from ovd_envs.search.protocol import SearchError

#: One JSON line a document, and the place where each begins (and the last one ends).
DOCUMENTS, OFFSETS = "documents.jsonl", "offsets.npy"

#: Ids that are collected before they are compared for the first time.
_FIRST_BLOCK = 1 << 16


class DocumentWriter:
    """Writes documents in order. Raises ``DuplicateId`` where two have the same id."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._handle = (folder / DOCUMENTS).open("wb", buffering=1 << 20)
        self._offsets = array("Q", [0])
        self._ids = _Hashes()
        self.count = 0

    def add(self, document: Document) -> int:
        """Write ``document``; returns its number, from 0."""
        # As json.dumps writes it, in a third of the time.
        line = (
            f'{{"id": {quoted(document.id)}, "title": {quoted(document.title)}, '
            f'"text": {quoted(document.text)}, "url": {quoted(document.url)}}}\n'
        ).encode("utf-8", "replace")
        self._handle.write(line)
        self._offsets.append(self._offsets[-1] + len(line))
        number = self.count
        self.count += 1
        self._refuse_doubles(self._ids.add(hash(document.id)))
        return number

    def finish(self) -> None:
        """Put everything on the disk."""
        self._refuse_doubles(self._ids.merge())
        self._handle.flush()
        os.fsync(self._handle.fileno())
        self._handle.close()
        with (self._folder / OFFSETS).open("wb") as handle:
            np.save(handle, np.frombuffer(self._offsets, dtype=np.uint64))
            handle.flush()
            os.fsync(handle.fileno())

    def close(self) -> None:
        """Close the file of an index that will not be finished."""
        self._handle.close()

    def _refuse_doubles(self, suspects: NDArray[np.int64]) -> None:
        """Look whether equal hashes are equal ids; hardly ever called with any."""
        if not suspects.size:
            return
        self._handle.flush()
        wanted = set(suspects.tolist())
        seen: dict[str, int] = {}
        with (self._folder / DOCUMENTS).open("rb") as lines:
            for number, line in enumerate(lines):
                identity = json.loads(line)["id"]
                if hash(identity) in wanted:
                    if identity in seen:
                        raise DuplicateId(identity, seen[identity], number)
                    seen[identity] = number


class DuplicateId(OVDError):
    """Two documents with one id; ``numbers`` counts them from 0."""

    def __init__(self, identity: str, first: int, second: int) -> None:
        self.identity = identity
        self.numbers = (first, second)
        super().__init__(
            f"documents {first + 1} and {second + 1} have the same id {identity!r}; "
            "expected an id of its own for each"
        )


class _Hashes:
    """Finds numbers that come twice, in 8 bytes for each of many millions."""

    def __init__(self) -> None:
        self._sorted = np.empty(0, np.int64)
        self._new = array("q")
        self._room = _FIRST_BLOCK

    def add(self, value: int) -> NDArray[np.int64]:
        """Those of the numbers so far that came twice; mostly told much later."""
        self._new.append(value)
        return self.merge() if len(self._new) >= self._room else self._sorted[:0]

    def merge(self) -> NDArray[np.int64]:
        """Those that came twice, among all numbers that were not yet compared."""
        self._sorted = np.concatenate([self._sorted, np.frombuffer(self._new, dtype=np.int64)])
        self._sorted.sort(kind="stable")  # timsort or radix sort: quick on what is sorted already
        self._new = array("q")
        self._room = max(_FIRST_BLOCK, len(self._sorted) // 4)
        double = self._sorted[1:] == self._sorted[:-1]
        found: NDArray[np.int64] = self._sorted[1:][double]
        return found


class DocumentFile(Sequence[Document]):
    """The documents of an index folder; only those that are asked for are read.

    May be used from several threads. Raises ``SearchError`` for files that are missing, damaged
    or of other documents than ``count``.
    """

    def __init__(self, folder: Path, count: int) -> None:
        try:
            self._offsets = np.load(folder / OFFSETS, mmap_mode="r")
            with (folder / DOCUMENTS).open("rb") as handle:
                self._bytes = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise SearchError(
                f"{folder}: the index is damaged ({error}); build it again"
            ) from error
        if len(self._offsets) != count + 1 or self._offsets[-1] != len(self._bytes):
            raise damaged(folder, f"{DOCUMENTS} is not whole")

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, number: int) -> Document: ...

    @overload
    def __getitem__(self, number: slice) -> list[Document]: ...

    def __getitem__(self, number: int | slice) -> Document | list[Document]:
        if isinstance(number, slice):
            return [self[n] for n in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(number)
        number %= len(self)
        start, end = int(self._offsets[number]), int(self._offsets[number + 1])
        row = json.loads(self._bytes[start:end])
        return Document(row["id"], row["title"], row["text"], row["url"])


def damaged(folder: Path, what: str) -> SearchError:
    """The error of an index that cannot be used as it is."""
    return SearchError(f"{folder}: the index is damaged ({what}); build it again")


def numbered(documents: Iterable[Document]) -> list[Document]:
    """Documents in memory. Raises ``DuplicateId``."""
    found = list(documents)
    seen: dict[str, int] = {}
    for number, document in enumerate(found):
        if seen.setdefault(document.id, number) != number:
            raise DuplicateId(document.id, seen[document.id], number)
    return found
