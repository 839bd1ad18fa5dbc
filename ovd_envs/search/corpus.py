"""A corpus: documents in JSONL files, read as a stream."""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from gzip import GzipFile
from pathlib import Path
from typing import Any, BinaryIO, cast

from ovd_envs.errors import OVDError
from ovd_envs.jsonl import parse_rows, reason_of

#: The fields of a row, by what they hold; the first one that a row has is taken.
FIELDS: Mapping[str, tuple[str, ...]] = {
    "id": ("id", "_id", "docid", "doc_id"),
    "title": ("title",),
    "text": ("text", "contents", "content", "body", "passage"),
    "url": ("url",),
}

_GZIP = b"\x1f\x8b"
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a corpus."""

    id: str
    title: str
    text: str
    """May be empty; such a document is found by its title only."""
    url: str = ""


@dataclass(frozen=True, slots=True)
class CorpusFile:
    """What is remembered of one file of a corpus."""

    path: str
    """Absolute."""
    bytes: int
    modified: int
    """Nanoseconds since 1970."""
    sha256: str
    """Of the bytes on the disk, compressed or not."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


@dataclass(slots=True)
class _Counted(io.RawIOBase):
    """A file whose bytes are counted and hashed as they are read."""

    handle: BinaryIO
    count: Callable[[int], None]
    sha256: Any = field(default_factory=hashlib.sha256)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = self.handle.readinto(buffer)  # type: ignore[attr-defined]
        self.sha256.update(memoryview(buffer)[:size])
        self.count(size)
        return cast(int, size)


class Corpus:
    """The documents of JSONL files, in order, as often as it is iterated.

    Each row is one document, in Search-R1's and FlashRAG's form (``{"id", "contents"}``, with the
    title in quotation marks as the first line of the contents) or with a field for each part
    (``{"id", "title", "text", "url"}``, and other usual names, see ``FIELDS``). Only the text is
    needed: a row without an id is named by its number, counted from 0 over the whole corpus.

    Args:
        paths: files, compressed by gzip or not, or folders of ``*.jsonl`` and ``*.jsonl.gz``
            (taken in the order of their names).
        fields: names of fields that are not the usual ones, e.g. ``{"text": "abstract"}``.

    Iterating raises ``OVDError`` naming file and row for a row that is not a document; making it
    raises for a file that is missing.
    """

    def __init__(
        self, paths: str | Path | Sequence[str | Path], *, fields: Mapping[str, str] | None = None
    ) -> None:
        self.fields = dict(fields or {})
        for part in self.fields:
            if part not in FIELDS:
                raise OVDError(f"fields: expected one of {', '.join(FIELDS)}, got {part!r}")
        given = [paths] if isinstance(paths, str | Path) else list(paths)
        self.paths = [file for path in given for file in _files(Path(path))]
        #: Bytes of all files, as they lie on the disk.
        self.bytes = sum(path.stat().st_size for path in self.paths)
        #: Bytes of them that have been read by the latest iteration or ``fingerprint``.
        self.bytes_read = 0
        self._files: list[CorpusFile] | None = None

    def __iter__(self) -> Iterator[Document]:
        for number, (path, row_number, row) in enumerate(self._rows()):
            yield self._document(row, number, f"{path}, row {row_number}")

    def where(self, number: int) -> str:
        """The file and row of document ``number`` (from 0), for messages."""
        for found, (path, row_number, _) in enumerate(self._rows()):
            if found == number:
                return f"{path}, row {row_number}"
        return f"document {number}"

    def fingerprint(self, progress: Callable[[], None] | None = None) -> list[CorpusFile]:
        """What the files hold: from the latest whole iteration, else by reading them now.

        ``progress`` is called after each block that is read.
        """
        if self._files is None:
            self.bytes_read = 0
            files = []
            for path in self.paths:
                with _open(path) as handle:
                    counted = _Counted(handle, self._count)
                    while counted.read(_BLOCK):
                        if progress is not None:
                            progress()
                files.append(_seen(path, counted))
            self._files = files
        return self._files

    def _rows(self) -> Iterator[tuple[Path, int, dict[str, Any]]]:
        self.bytes_read = 0
        files = []
        for path in self.paths:
            with _open(path) as handle:
                counted = _Counted(handle, self._count)
                stream = io.BufferedReader(counted, _BLOCK)
                zipped = stream.peek(2)[:2] == _GZIP
                lines = GzipFile(fileobj=stream) if zipped else stream
                try:
                    for number, row in parse_rows(cast(BinaryIO, lines), path):
                        yield path, number, row
                except (EOFError, zlib.error) as error:
                    raise OVDError(f"{path}: the gzip stream is damaged ({error})") from error
            files.append(_seen(path, counted))
        self._files = files

    def _count(self, size: int) -> None:
        self.bytes_read += size

    def _document(self, row: dict[str, Any], number: int, where: str) -> Document:
        identity = self._part(row, "id", where)
        if isinstance(identity, int) and not isinstance(identity, bool):
            identity = str(identity)
        parts = {"id": str(number) if identity is None else identity}
        for name in ("title", "text", "url"):
            value = self._part(row, name, where)
            parts[name] = "" if value is None else value
        for name, value in parts.items():
            if not isinstance(value, str):
                raise OVDError(
                    f"{where}: expected a text as the {name}, got {type(value).__name__}"
                )
            if not value.isascii():
                parts[name] = clean(value)
        if not parts["title"]:
            parts["title"], parts["text"] = split_title(parts["text"])
        return Document(**parts)

    def _part(self, row: dict[str, Any], part: str, where: str) -> Any:
        """The value of one part of a document, None where the row does not have it."""
        named = self.fields.get(part)
        for name in (named,) if named else FIELDS[part]:
            if name in row:
                if part == "text" and row[name] is None:
                    raise OVDError(f"{where}: expected a text in field {name!r}, got null")
                return row[name]
        if named or part == "text":
            wanted = f"a field {named!r}" if named else f"one of {', '.join(FIELDS[part])}"
            raise OVDError(
                f"{where}: expected {wanted} (the {part}), found the fields {', '.join(row)}"
            )
        return None


def split_title(contents: str) -> tuple[str, str]:
    """Title and text of ``"Title"\\ntext``; no title where the first line is not in quotes."""
    first, feed, rest = contents.partition("\n")
    first = first.strip()
    if feed and len(first) > 2 and first[0] == first[-1] == '"':
        return first[1:-1].strip(), rest
    return "", contents


def clean(text: str) -> str:
    """``text`` with U+FFFD in place of half surrogate pairs, which UTF-8 cannot hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.name.endswith((".jsonl", ".jsonl.gz")))
        if not found:
            raise OVDError(f"{path}: expected *.jsonl or *.jsonl.gz in the folder, found none")
        return found
    if not path.is_file():
        raise OVDError(f"{path}: cannot be read (no such file or folder)")
    return [path]


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb", buffering=0)
    except OSError as error:
        raise OVDError(f"{path}: cannot be read ({reason_of(error)})") from error


def _seen(path: Path, counted: _Counted) -> CorpusFile:
    status = path.stat()
    return CorpusFile(
        str(path.resolve()), status.st_size, status.st_mtime_ns, counted.sha256.hexdigest()
    )
