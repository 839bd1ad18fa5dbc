"""JSON lines and atomic files: what is on disk is whole, or it is not there."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ovd_envs.errors import OVDError


def read_jsonl(path: str | Path) -> Iterator[dict[str, Any]]:
    """Rows of a JSONL file as a stream; blank lines are passed over.

    Raises ``OVDError`` naming the file and the row (1-based line number) for a missing file or
    a row that is not a JSON object.
    """
    path = Path(path)
    try:
        handle = path.open("rb")
    except OSError as error:
        raise OVDError(f"{path}: cannot be read ({error.strerror})") from error
    with handle:
        for number, line in enumerate(handle, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise OVDError(f"{path}, row {number}: not valid JSON ({error})") from error
            if not isinstance(row, dict):
                raise OVDError(f"{path}, row {number}: expected a JSON object, got {type(row).__name__}")
            yield row


def write_atomic(path: str | Path, data: str | bytes) -> None:
    """Write ``data`` to ``path`` so that a reader, or a kill, sees the old file or the new one."""
    path = Path(path)
    payload = data.encode() if isinstance(data, str) else data
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise OVDError(f"{path}: cannot be written ({error.strerror})") from error
    try:
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(payload)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(name, path)
    except OSError as error:
        raise OVDError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        if os.path.exists(name):
            os.unlink(name)


def write_jsonl(path: str | Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write ``rows`` as a JSONL file, atomically."""
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
