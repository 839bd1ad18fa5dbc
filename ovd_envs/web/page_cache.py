"""Pages on disk, by their address: read once, the same ever after."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ovd_envs.jsonl import write_atomic

#: Part of every key; raised when what stands in an entry, or how text is extracted, changes.
_FORMAT = "ovd page 1"


class PageCache:
    """A folder with one JSON file for each address, written atomically; processes may share it.

    Args:
        folder: made at the first write.
        max_age: seconds after which a page is read anew; ``None``: never.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        folder: str | Path,
        max_age: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.folder = Path(folder)
        self._max_age = max_age
        self._clock = clock

    def get(self, url: str) -> dict[str, Any] | None:
        """What was kept for ``url``; ``None`` where nothing was, or it is too old or damaged."""
        try:
            entry = json.loads(self._path(url).read_bytes())
        except (OSError, ValueError):
            return None  # not there, or not ours: the page is read, put() mends it
        if not isinstance(entry, dict) or entry.get("asked") != url:
            return None
        age = self._clock() - float(entry.get("kept_at") or 0)
        if self._max_age is not None and not 0 <= age <= self._max_age:
            return None
        value = entry.get("value")
        return value if isinstance(value, dict) else None

    def put(self, url: str, value: Mapping[str, Any]) -> None:
        """Keep ``value`` (plain JSON). Raises ``OVDError`` where it cannot be written."""
        entry = {"asked": url, "kept_at": self._clock(), "value": dict(value)}
        write_atomic(self._path(url), json.dumps(entry))

    def _path(self, url: str) -> Path:
        key = hashlib.sha256(f"{_FORMAT}\n{url}".encode()).hexdigest()
        return self.folder / key[:2] / f"{key}.json"
