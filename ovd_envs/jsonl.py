"""JSON lines and atomic files: what is on disk is whole, or it is not there."""

from __future__ import annotations

import codecs
import contextlib
import errno
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ovd_envs.errors import OVDError

#: json.loads for one line of UTF-8, without its search for the encoding (a third of the time).
_decode = json.JSONDecoder().decode


def read_jsonl(path: str | Path) -> Iterator[dict[str, Any]]:
    """Rows of a JSONL file as a stream; blank lines are passed over.

    Raises ``OVDError`` naming the file and the row (1-based line number) for a missing file or
    a row that is not a JSON object.
    """
    for _, row in read_jsonl_numbered(path):
        yield row


def read_jsonl_numbered(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """``read_jsonl`` with the line number (1-based) of each row."""
    path = Path(path)
    try:
        handle = path.open("rb")
    except OSError as error:
        raise OVDError(f"{path}: cannot be read ({reason_of(error)})") from error
    with handle:
        yield from parse_rows(handle, path)


def parse_rows(lines: Iterable[bytes], path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """``read_jsonl_numbered`` for lines that come from elsewhere than a plain file.

    ``path`` is what messages name.
    """
    try:
        for number, line in enumerate(lines, start=1):
            if not line.isspace():
                yield number, _parse(line, path, number)
    except OSError as error:
        raise OVDError(f"{path}: cannot be read ({reason_of(error)})") from error


def write_atomic(path: str | Path, data: str | bytes) -> None:
    """Write ``data`` to ``path`` so that a reader, or a kill, sees the old file or the new one.

    The data are on the disk when this returns. Raises ``OVDError`` naming the file for a full
    disk, a read-only folder and the like; then the old file, if any, is as it was.
    """
    _replace(Path(path), [data])


def write_jsonl(path: str | Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write ``rows`` as a JSONL file, atomically (see ``write_atomic``)."""
    _replace(Path(path), (json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _parse(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        row = _decode(str(line, "utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        why = error.msg if isinstance(error, json.JSONDecodeError) else error
        raise OVDError(f"{path}, row {number}: not valid JSON ({why})") from error
    if not isinstance(row, dict):
        found = type(row).__name__
        raise OVDError(f"{path}, row {number}: expected a JSON object, got {found}")
    return row


def _replace(path: Path, chunks: Iterable[str | bytes]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not tempfile: its files are for their owner's eyes only, whatever the umask says.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            with os.fdopen(descriptor, "wb") as handle:
                for chunk in chunks:
                    # Half a surrogate pair, which a model can write, is no reason to lose a run.
                    data = (
                        chunk
                        if isinstance(chunk, bytes)
                        else chunk.encode("utf-8", "surrogatepass")
                    )
                    handle.write(data)
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise OVDError(f"{path}: cannot be written ({reason_of(error)})") from error


def _sync_folder(folder: Path) -> None:
    """Make the new name itself durable; without this a power cut can bring the old file back."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot sync a folder; the file itself is safe.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def reason_of(error: OSError) -> str:
    """Why a file could not be read or written, in a few words."""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return "the disk is full"
        case errno.EACCES | errno.EPERM:
            return "permission denied"
        case errno.EROFS:
            return "the file system is read-only"
        case errno.ENOENT:
            return "no such file or folder"
        case errno.EISDIR:
            return "it is a folder"
    return error.strerror or str(error) or type(error).__name__
