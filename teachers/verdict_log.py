"""Verdicts saved as they come, so that a stop loses none, and each tied to what was judged."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from ovd_envs.errors import OVDError
from ovd_envs.jsonl import read_jsonl, write_jsonl
from teachers.verdict import Verdict

#: How each line of the file begins.
_BEGINNING = b'{"episode": '


def read_verdicts(path: str | Path) -> Iterator[Verdict]:
    """Verdicts of a JSONL file as a stream. Raises ``OVDError`` naming file and row."""
    for _, verdict in read_keyed(path):
        yield verdict


def read_keyed(path: str | Path) -> Iterator[tuple[str, Verdict]]:
    """(key of what was judged and by whom, verdict) for each row. Raises ``OVDError``."""
    for number, row in enumerate(read_jsonl(path), start=1):
        key = row.pop("key", "")
        try:
            yield str(key), Verdict.from_dict(row)
        except OVDError as error:
            raise OVDError(f"{path}, row {number}: {error}") from error


class VerdictLog:
    """A JSONL file to which verdicts are appended; a context manager.

    What the file held before is in ``rows``. A last line that was being written when the process
    was killed is cut off. Raises ``OVDError`` for a file that cannot be read or written or that
    holds something else than verdicts.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = self.path.open("ab+")
            self._mend_last_line()
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            self.rows: list[tuple[str, Verdict]] = list(read_keyed(self.path))
        except OVDError:
            self._handle.close()
            raise

    def append(self, key: str, verdict: Verdict) -> None:
        """Add one verdict. It is safe from a kill at once, from a power cut after ``sync``."""
        try:
            self._handle.write(_line(key, verdict).encode())
            self._handle.flush()
        except OSError as error:
            raise self._unwritable(error) from error

    def sync(self) -> None:
        """Put what was appended on the disk."""
        try:
            os.fsync(self._handle.fileno())
        except OSError as error:
            raise self._unwritable(error) from error

    def finish(self, rows: Iterable[tuple[str, Verdict]]) -> None:
        """Leave exactly these rows in the file, atomically."""
        write_jsonl(self.path, (_row(key, verdict) for key, verdict in rows))

    def _mend_last_line(self) -> None:
        """End the last line with a line feed, or cut it off where it is half a verdict.

        Only what ``append`` began is ever cut: another file given by mistake stays as it is.
        """
        self._handle.seek(0)
        end, last = 0, b""
        for last in self._handle:
            end += len(last)
        if not last or last.endswith(b"\n"):
            return
        try:
            json.loads(last)
        except ValueError:
            if last.startswith(_BEGINNING) or _BEGINNING.startswith(last):
                self._handle.truncate(end - len(last))
        else:
            self._handle.write(b"\n")
        self._handle.flush()

    def _unwritable(self, error: OSError) -> OVDError:
        return OVDError(f"{self.path}: cannot be written ({error.strerror})")

    def __enter__(self) -> VerdictLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._handle.close()


def _row(key: str, verdict: Verdict) -> dict[str, Any]:
    return {**verdict.to_dict(), "key": key}


def _line(key: str, verdict: Verdict) -> str:
    # ASCII escapes: what a judge quotes from a student may hold a lone surrogate.
    return json.dumps(_row(key, verdict)) + "\n"
