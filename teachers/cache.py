"""Verdicts on disk, found by content: what a judge has said of an episode is not asked again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

from agents.episode import Episode
from ovd_envs.errors import OVDError
from ovd_envs.jsonl import reason_of
from teachers.protocol import Judge
from teachers.verdict import Verdict

#: Seconds that a process waits for another one that writes.
_PATIENCE = 30.0


class VerdictCache:
    """A folder with a database of verdicts; several processes of one machine may share it.

    The key is the judge's ``fingerprint`` and what judges read of an episode (task, messages,
    observations, outcome; not its id, agent or seed); for one that reads whole groups
    (``scores_groups``) also ``beside``, what stands beside the episode (``Grouping.contexts``),
    without which its verdicts are not cached. A judge without a fingerprint is not cached, and
    neither is an error verdict: that judge is asked again. A verdict is safe from a kill once
    ``put`` has returned.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.path = self.folder / "verdicts.sqlite3"
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._process = 0

    def get(self, judge: Judge, episode: Episode, beside: str = "") -> Verdict | None:
        """The known verdict, under the episode's id; ``None`` where there is none.

        Raises ``OVDError`` where the cache cannot be read.
        """
        if not is_cached(judge, beside):
            return None
        return self.find(verdict_key(judge, content_hash(episode), beside), episode.id)

    def put(self, judge: Judge, episode: Episode, verdict: Verdict, beside: str = "") -> None:
        """Keep a verdict, unless it is an error. Raises ``OVDError`` where it cannot be written."""
        if is_cached(judge, beside) and not verdict.failed:
            self.keep(verdict_key(judge, content_hash(episode), beside), verdict)

    def find(self, key: str, episode: str) -> Verdict | None:
        """``get`` by a ``verdict_key``, under the episode's id ``episode``."""
        with self._lock:
            try:
                if self._connection is None or self._process != os.getpid():
                    if not self.path.exists() and not self.folder.is_file():
                        return None
                    self._open()
                row = self._cursor.execute(_FIND, (bytes.fromhex(key),)).fetchone()
            except (OSError, sqlite3.Error) as error:
                raise self._unusable("read", error) from error
        if row is None:
            return None
        try:
            return Verdict.from_dict({**json.loads(row[0]), "episode": episode})
        except (ValueError, TypeError, OVDError):
            return None  # not a verdict: the judge is asked, and what it says is put there

    def keep(self, key: str, verdict: Verdict) -> None:
        """``put`` by a ``verdict_key``."""
        # ASCII escapes: what a judge quotes may hold half a surrogate pair.
        row = (bytes.fromhex(key), json.dumps(verdict.to_dict()))
        with self._lock:
            try:
                self._open()
                self._cursor.execute(_KEEP, row)
            except (OSError, sqlite3.Error) as error:
                raise self._unusable("written", error) from error

    def remove(self) -> None:
        """Forget all verdicts, and leave no file; of a cache that no other process has open."""
        with self._lock:
            if self._connection is not None and self._process == os.getpid():
                self._connection.close()
            self._connection = None
            for ending in ("", "-wal", "-shm"):  # those of a process that was killed too
                self.path.with_name(self.path.name + ending).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self.folder.rmdir()

    def _open(self) -> None:
        """Connect, once in each process: a connection does not survive a fork."""
        if self._connection is not None and self._process == os.getpid():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            self.path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
        )
        # Readers and a writer do not wait for one another; a kill loses no verdict, a power cut
        # the last ones at most.
        _use_wal(connection)
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(_MAKE)
        self._connection, self._process = connection, os.getpid()
        self._cursor = connection.cursor()

    def _unusable(self, what: str, error: Exception) -> OVDError:
        reason = reason_of(error) if isinstance(error, OSError) else str(error)
        return OVDError(f"{self.path}: the verdict cache cannot be {what} ({reason})")


def _use_wal(connection: sqlite3.Connection) -> None:
    """Set the journal mode. SQLite itself does not wait there for another process that sets it."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.01)


_MAKE = "CREATE TABLE IF NOT EXISTS verdicts (key BLOB PRIMARY KEY, verdict TEXT) WITHOUT ROWID"
_FIND = "SELECT verdict FROM verdicts WHERE key = ?"
_KEEP = "INSERT OR REPLACE INTO verdicts VALUES (?, ?)"

#: json.dumps(..., sort_keys=True, default=str) without making an encoder for each episode.
_encode = json.JSONEncoder(sort_keys=True, default=str).encode


def is_cached(judge: Judge, beside: str = "") -> bool:
    """Whether the judge says what its verdicts depend on, and that is known."""
    known = bool(beside) or not getattr(judge, "scores_groups", False)
    return known and bool(getattr(judge, "fingerprint", None))


def verdict_key(judge: Judge, content: str, beside: str = "") -> str:
    """SHA-256 of the judge and of what it reads, in hexadecimal digits.

    That is an episode's ``content_hash``, and ``beside`` of a judge that reads whole groups.
    """
    fingerprint = getattr(judge, "fingerprint", None) or ""
    read = [judge.name, fingerprint, content, *([beside] if beside else [])]
    return hashlib.sha256(json.dumps(read).encode()).hexdigest()


def content_hash(episode: Episode) -> str:
    """SHA-256 of what judges read of an episode, in hexadecimal digits."""
    read: dict[str, Any] = {
        "env": episode.env,
        "task": episode.task.to_dict(),
        "observation": episode.observation,
        "turns": [(t.action, t.observation, t.reward, t.stop) for t in episode.turns],
        "reward": episode.reward,
        "terminated": episode.terminated,
        "truncated": episode.truncated,
        "end_reason": episode.end_reason,
        "info": episode.info,
    }
    # ASCII escapes: a lone surrogate in a student's text has no UTF-8 form.
    text = _encode(read)
    return hashlib.sha256(text.encode()).hexdigest()
