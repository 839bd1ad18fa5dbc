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
_SHAPES = 1000


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


#: The fields that hold id, title, text and url of a row; None for one that it does not have.
_Names = tuple[str | None, str | None, str, str | None]


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
        #: The fields of a row that hold the parts of a document, by the fields that it has.
        self._shapes: dict[tuple[str, ...], _Names] = {}

    def __iter__(self) -> Iterator[Document]:
        for number, (path, row_number, row) in enumerate(self._rows()):
            try:
                yield self._document(row, number)
            except _BadRow as error:
                raise OVDError(f"{path}, row {row_number}: {error}") from error

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
                # Buffered once more: a GzipFile finds its lines in Python.
                lines = io.BufferedReader(_unzipped(stream), _BLOCK) if zipped else stream
                try:
                    for number, row in parse_rows(lines, path):
                        yield path, number, row
                except (EOFError, zlib.error) as error:
                    raise OVDError(f"{path}: the gzip stream is damaged ({error})") from error
            files.append(_seen(path, counted))
        self._files = files

    def _count(self, size: int) -> None:
        self.bytes_read += size

    def _document(self, row: dict[str, Any], number: int) -> Document:
        """Raises ``_BadRow``."""
        shape = tuple(row)
        names = self._shapes.get(shape)
        if names is None:
            # Rows of one corpus are mostly alike; a few shapes are all that is ever kept.
            if len(self._shapes) > _SHAPES:
                self._shapes.clear()
            names = self._shapes[shape] = self._names(row)
        id_name, title_name, text_name, url_name = names
        identity: object = str(number)
        if id_name is not None:
            identity = row[id_name]
            if identity is None:
                identity = str(number)
            elif isinstance(identity, int) and not isinstance(identity, bool):
                identity = str(identity)
        text = _text(row[text_name], "text")
        title = url = ""
        if title_name is not None and row[title_name] is not None:
            title = _text(row[title_name], "title")
        if url_name is not None and row[url_name] is not None:
            url = _text(row[url_name], "url")
        if not title and text.startswith('"'):
            title, text = split_title(text)
        return Document(_text(identity, "id"), title, text, url)

    def _names(self, row: dict[str, Any]) -> _Names:
        names: dict[str, str | None] = {}
        for part, usual in FIELDS.items():
            named = self.fields.get(part)
            name = next((name for name in ((named,) if named else usual) if name in row), None)
            if name is None and (named or part == "text"):
                wanted = f"a field {named!r}" if named else f"one of {', '.join(usual)}"
                found = ", ".join(row)
                raise _BadRow(f"expected {wanted} (the {part}), found the fields {found}")
            names[part] = name
        return names["id"], names["title"], names["text"] or "", names["url"]


class _BadRow(Exception):
    """What is wrong with a row, without its place."""


def _text(value: object, part: str) -> str:
    if not isinstance(value, str):
        found = "null" if value is None else type(value).__name__
        raise _BadRow(f"expected a text as the {part}, got {found}")
    return value if value.isascii() else clean(value)


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


def _unzipped(stream: io.BufferedReader[_Counted]) -> io.RawIOBase:
    return cast(io.RawIOBase, GzipFile(fileobj=stream))


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
