"""Verdicts saved as they come, so that a stop loses none, and each tied to what was judged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from ovd_envs.append_log import AppendLog
from ovd_envs.errors import OVDError
from ovd_envs.jsonl import read_jsonl_numbered, write_jsonl
from teachers.cache import verdict_key
from teachers.protocol import Judge
from teachers.verdict import Verdict


def row_key(judge: Judge, content: str, beside: str = "") -> str:
    """What ties a row to the judge and to what it judged: ``verdict_key`` and ``content_hash``."""
    return f"{verdict_key(judge, content, beside)}:{content}"


def content_of(key: str) -> str:
    """The ``content_hash`` of the judged episode in a ``row_key``."""
    return key.partition(":")[2]


def read_verdicts(path: str | Path) -> Iterator[Verdict]:
    """Verdicts of a JSONL file as a stream. Raises ``OVDError`` naming file and row."""
    for _, verdict in read_keyed(path):
        yield verdict


def read_keyed(path: str | Path) -> Iterator[tuple[str, Verdict]]:
    """(key of what was judged and by whom, verdict) for each row. Raises ``OVDError``."""
    for number, row in read_jsonl_numbered(path):
        key = row.pop("key", "")
        try:
            yield str(key), Verdict.from_dict(row)
        except OVDError as error:
            raise OVDError(f"{path}, row {number}: {error}") from error


class VerdictLog:
    """A JSONL file to which verdicts are appended; a context manager.

    What the file held before is in ``rows``; half a verdict at its end, left by a kill, is cut
    off. Raises ``OVDError`` for a file that cannot be read or written or that holds something
    else than verdicts.
    """

    def __init__(self, path: str | Path) -> None:
        self._log = AppendLog(path, '{"episode": ')
        self.path = self._log.path
        try:
            self.rows: list[tuple[str, Verdict]] = list(read_keyed(self.path))
        except OVDError:
            self._log.close()
            raise

    def append(self, key: str, verdict: Verdict) -> None:
        """Add one verdict. It is safe from a kill at once, from a power cut after ``sync``."""
        self._log.append(_row(key, verdict))

    def sync(self) -> None:
        """Put what was appended on the disk."""
        self._log.sync()

    def finish(self, rows: Iterable[tuple[str, Verdict]]) -> None:
        """Leave exactly these rows in the file, atomically."""
        write_jsonl(self.path, (_row(key, verdict) for key, verdict in rows))

    def __enter__(self) -> VerdictLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._log.close()


def _row(key: str, verdict: Verdict) -> dict[str, Any]:
    return {**verdict.to_dict(), "key": key}
