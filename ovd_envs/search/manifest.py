"""What an index folder says of itself. It is written last: without it there is no index."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ovd_envs.jsonl import reason_of, write_atomic
from ovd_envs.search.building import place_of
from ovd_envs.search.corpus import CorpusFile
from ovd_envs.search.protocol import SearchError

FILE = "index.json"

#: Version of the folder's form; an index of another one is built again.
SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Vectors:
    """The dense part of an index."""

    encoder: str
    """What ``make_encoder`` takes."""
    dimensions: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """The contents of ``index.json``."""

    documents: int
    language: str
    corpus: tuple[CorpusFile, ...] = ()
    """The files that it was made from; none where it was made from documents in memory."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """The corpus's names of fields, where they were given."""
    vectors: Vectors | None = None
    wanted: str | None = None
    """The encoder whose vectors are still to come, where the index had some before."""

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Raises ``SearchError`` where there is no whole index of this version."""
        try:
            text = (folder / FILE).read_text()
        except OSError as error:
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                raise SearchError(f"{folder}: cannot be read ({reason_of(error)})") from error
            if place_of(folder).exists():
                raise SearchError(
                    f"{folder}: its building was stopped, or is under way; "
                    f"finish it: ovd index CORPUS --out {folder}"
                ) from error
            raise SearchError(
                f"{folder}: not an index (no {FILE} in it); "
                f"make one: ovd index CORPUS --out {folder}"
            ) from error
        try:
            row = json.loads(text)
            if row["schema"] != SCHEMA:
                raise SearchError(
                    f"{folder}: an index of version {row['schema']}, expected {SCHEMA}; "
                    f"build it again: ovd index CORPUS --out {folder}"
                )
            vectors = row["vectors"]
            return cls(
                row["documents"],
                row["language"],
                tuple(CorpusFile(**file) for file in row["corpus"]),
                row["fields"],
                None if vectors is None else Vectors(**vectors),
                row.get("wanted"),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise SearchError(f"{folder / FILE}: not an index's ({error!r})") from error

    def write(self, folder: Path) -> None:
        """Write it, atomically."""
        row: dict[str, Any] = {"schema": SCHEMA, **asdict(self)}
        write_atomic(folder / FILE, json.dumps(row, indent=2) + "\n")

    def corpus_changed(self) -> str:
        """One line naming the first file of the corpus that has been written since, else "".

        Quick: it looks at sizes and times only. A file that is gone is no change.
        """
        for file in self.corpus:
            try:
                status = Path(file.path).stat()
            except OSError:
                continue
            if (status.st_size, status.st_mtime_ns) != (file.bytes, file.modified):
                return f"{file.path} has been written since the index was made from it"
        return ""
