"""A JSONL file that grows by whole lines, so that a stop at any moment loses none of them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ovd_envs.errors import OVDError


class AppendLog:
    """A JSONL file that rows are appended to.

    A last line without its line feed was being written when the process was killed: it is cut
    off, if it begins with ``beginning``, as every line that ``append`` writes must. Another file
    given by mistake stays as it is. Raises ``OVDError`` for a file that cannot be written.
    """

    def __init__(self, path: str | Path, beginning: str) -> None:
        self.path = Path(path)
        self._beginning = beginning.encode()
        try:
            #: Whether there was no such file before.
            self.is_new = not self.path.exists()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = self.path.open("ab+")
            self._mend_last_line()
        except OSError as error:
            raise self._unwritable(error) from error

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one row. It is safe from a kill at once, from a power cut after ``sync``."""
        try:
            # ASCII escapes: what a model wrote may hold half a surrogate pair.
            self._handle.write(json.dumps(row).encode() + b"\n")
            self._handle.flush()
        except OSError as error:
            raise self._unwritable(error) from error

    def sync(self) -> None:
        """Put what was appended on the disk."""
        try:
            os.fsync(self._handle.fileno())
        except OSError as error:
            raise self._unwritable(error) from error

    def close(self) -> None:
        """Close the file. What could not be written is tried once more."""
        try:
            self._handle.close()
        except OSError as error:
            raise self._unwritable(error) from error

    def _mend_last_line(self) -> None:
        """End the last line with a line feed, or cut it off where it is half a row."""
        self._handle.seek(0)
        end, last = 0, b""
        for last in self._handle:
            end += len(last)
        if not last or last.endswith(b"\n"):
            return
        try:
            json.loads(last)
        except ValueError:
            if last.startswith(self._beginning) or self._beginning.startswith(last):
                self._handle.truncate(end - len(last))
        else:
            self._handle.write(b"\n")
        self._handle.flush()

    def _unwritable(self, error: OSError) -> OVDError:
        return OVDError(f"{self.path}: cannot be written ({error.strerror})")
