"""Recorded searches: any engine's traffic in a file, replayed offline and bit for bit."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovd_envs.append_log import AppendLog
from ovd_envs.errors import OVDError
from ovd_envs.search.protocol import (
    QueryError,
    SearchEngine,
    SearchError,
    SearchResult,
    blocks,
)
from ovd_envs.search.registry import EngineSpec, make_engine

if TYPE_CHECKING:
    from ovd_envs.task import Task

#: Version of the file's format: its first line is {"cassette": 1, "engine": NAME}, each other
#: {"query", "k", "results"} and, of an engine that is told the task, "scope".
SCHEMA = 1

_HEADER = b'{"cassette"'
#: What every line begins with.
_BEGINNING = '{"'

#: What was asked: scope ("" or "train/ID", "eval/ID"), query, number of results.
_Key = tuple[str, str, int]


class CassetteEngine:
    """Replays recorded searches, or records those of another engine.

    A search is found by its query and ``k``, both exactly as they were recorded; floats come back
    with the same bits. Without ``record`` nothing is asked and nothing written: what was not
    recorded is a ``QueryError``. With it, what the file lacks is asked of that engine and
    appended, each search once, also where several threads want it at the same time; several
    processes may record into one file (each asks for itself, the first answer counts).

    Args:
        file: the cassette, JSON lines.
        record: the engine to record, as ``make_engine`` takes it.
        prefix: answer a search for fewer results than were recorded with the first of those.
            Right for an engine whose best 3 are the first 3 of its best 10 (BM25, dense); not for
            one that fuses or samples.

    Raises ``OVDError`` for a file that is missing (without ``record``), is no cassette, or was
    recorded from another engine.
    """

    def __init__(
        self, file: str | Path, *, record: EngineSpec | None = None, prefix: bool = False
    ) -> None:
        self._engine = None if record is None else make_engine(record)
        self._tape = _Tape(Path(file), self._engine)
        self._prefix = prefix
        self._under_way: set[_Key] = set()  # what is being asked for, guarded by:
        self._answered = threading.Condition()
        self._process = os.getpid()
        self.name = f"cassette:{self._tape.engine_name}"
        self.blocks = blocks(self._engine)

    def search(self, queries: Sequence[str], k: int) -> list[list[SearchResult]]:
        """The recorded results of each query; see the class for one that was not recorded."""
        return self._search("", self._engine, queries, k)

    def for_task(self, task: Task, *, training_step: int | None) -> SearchEngine:
        """The view of one task, where the recorded engine has such views; else the engine."""
        bind = getattr(self._engine, "for_task", None)
        scope = _scope(task, training_step is not None)
        if self._engine is not None:
            if bind is None:
                return self
            return _TaskView(self, scope, bind(task, training_step=training_step))
        return _TaskView(self, scope, None) if self._tape.has_scopes else self

    def close(self) -> None:
        """Put what was recorded on the disk, and close the recorded engine."""
        self._tape.close()
        close = getattr(self._engine, "close", None)
        if close is not None:
            close()

    def _search(
        self, scope: str, engine: SearchEngine | None, queries: Sequence[str], k: int
    ) -> list[list[SearchResult]]:
        if k < 1:
            raise OVDError(f"k: expected at least 1, got {k}")
        if self._process != os.getpid():  # forked: the threads that ask are the parent's
            self._under_way, self._answered = set(), threading.Condition()
            self._process = os.getpid()
        known: dict[str, tuple[SearchResult, ...]] = {}
        while True:
            with self._answered:
                missing = []
                for query in dict.fromkeys(q for q in queries if q not in known):
                    results = self._tape.get((scope, query, k), self._prefix)
                    if results is None:
                        missing.append(query)
                    else:
                        known[query] = results
                if not missing:
                    return [list(known[query]) for query in queries]
                if engine is None:
                    raise QueryError(self._miss(scope, missing[0], k))
                free = [q for q in missing if (scope, q, k) not in self._under_way]
                if not free:  # nothing of our own is under way: two never wait for each other
                    self._answered.wait()
                    continue
                self._under_way.update((scope, query, k) for query in free)
            try:
                known |= self._record(scope, engine, free, k)
            finally:
                with self._answered:
                    self._under_way.difference_update((scope, query, k) for query in free)
                    self._answered.notify_all()

    def _record(
        self, scope: str, engine: SearchEngine, queries: Sequence[str], k: int
    ) -> dict[str, tuple[SearchResult, ...]]:
        """Ask ``engine``, and keep what it answers; returns what the file holds then."""
        try:
            found = engine.search(queries, k)
        except QueryError as error:
            if error.engine == engine.name:  # not what a part of it has found
                for query, results in error.found.items():
                    self._tape.add((scope, query, k), results)
            raise
        if len(found) != len(queries):
            raise SearchError(
                f"{engine.name}: {len(found)} lists of results for {len(queries)} queries"
            )
        return {
            query: self._tape.add((scope, query, k), results)
            for query, results in zip(queries, found, strict=True)
        }

    def _miss(self, scope: str, query: str, k: int) -> str:
        shown = query if len(query) <= 80 else query[:77] + "..."
        where = f" in {scope}" if scope else ""
        others = self._tape.recorded_numbers(scope, query)
        if others:
            hint = f"it was recorded with k {', '.join(map(str, others))}"
            if max(others) > k:
                hint += " ('prefix': true answers with the first of them)"
        else:
            hint = "record it with 'record': the engine to ask"
        return f"{self._tape.path}: no search for {shown!r} with k {k}{where} was recorded; {hint}"


def record(engine: SearchEngine, file: str | Path) -> CassetteEngine:
    """``engine``, with every search kept in ``file``; what is there already is not asked again."""
    return CassetteEngine(file, record=engine)


class _TaskView:
    """A cassette within one task."""

    def __init__(self, cassette: CassetteEngine, scope: str, engine: SearchEngine | None) -> None:
        self.name = cassette.name
        self._cassette = cassette
        self._scope = scope
        self._engine = engine

    def search(self, queries: Sequence[str], k: int) -> list[list[SearchResult]]:
        return self._cassette._search(self._scope, self._engine, queries, k)


def _scope(task: Task, training: bool) -> str:
    return f"{'train' if training else 'eval'}/{task.id}"


class _Tape:
    """The file and what is known of it. With an engine it is written to."""

    def __init__(self, path: Path, engine: SearchEngine | None) -> None:
        self.path = path
        self.engine_name = "" if engine is None else engine.name
        self.has_scopes = False
        self._writes = engine is not None
        self._rows: dict[_Key, tuple[SearchResult, ...]] = {}
        self._numbers: dict[tuple[str, str], set[int]] = {}
        self._lock = threading.Lock()
        self._log: AppendLog | None = None
        self._read_to = 0  # bytes of the file that are known
        self._lines = 0
        if engine is None:
            self._catch_up()
            if not self._lines:
                raise OVDError(f"{path}: not a cassette (it is empty)")
            return
        if path.exists():
            self._refuse_another_file()
        with _locked(path):
            self._open_log()
            self._catch_up()
            if not self._lines:
                self._append({"cassette": SCHEMA, "engine": engine.name})
        if self.engine_name != engine.name:
            raise OVDError(
                f"{path}: recorded from engine {self.engine_name!r}, not from {engine.name!r}; "
                "record into another file"
            )

    def get(self, key: _Key, prefix: bool) -> tuple[SearchResult, ...] | None:
        """What was recorded for ``key``; with ``prefix`` also from a search for more results."""
        with self._lock:
            results = self._rows.get(key)
            if results is None and prefix:
                scope, query, k = key
                larger = [n for n in self._numbers.get((scope, query), ()) if n > k]
                if larger:
                    results = self._rows[scope, query, min(larger)][:k]
            return results

    def recorded_numbers(self, scope: str, query: str) -> list[int]:
        """The numbers of results with which ``query`` was recorded."""
        return sorted(self._numbers.get((scope, query), ()))

    def add(self, key: _Key, results: Sequence[SearchResult]) -> tuple[SearchResult, ...]:
        """Record ``results``; returns what the file holds, another process's where it was first."""
        scope, query, k = key
        row: dict[str, Any] = {"query": query, "k": k, "results": [r.to_dict() for r in results]}
        if scope:
            row["scope"] = scope
        with self._lock, _locked(self.path):
            if not self._catch_up():
                # Another process was killed while it wrote: its half line is cut off, or ended.
                self.close()
                self._open_log()
                self._catch_up()
            if key not in self._rows:
                self._append(row)
            return self._rows[key]

    def close(self) -> None:
        """Put everything on the disk and close the file."""
        if self._log is not None:
            self._log.sync()
            self._log.close()
            self._log = None

    def _open_log(self) -> None:
        self._log = AppendLog(self.path, _BEGINNING)

    def _append(self, row: dict[str, Any]) -> None:
        if self._log is None:  # closed before
            self._open_log()
        assert self._log is not None
        self._log.append(row)
        self._catch_up()

    def _refuse_another_file(self) -> None:
        """Raise for a file that is no cassette, before anything is cut off or appended."""
        try:
            with self.path.open("rb") as handle:
                first = handle.readline()
        except OSError as error:
            raise OVDError(f"{self.path}: cannot be read ({error.strerror})") from error
        if not (first.startswith(_HEADER) or _HEADER.startswith(first)):
            raise OVDError(f"{self.path}: not a cassette; record into another file")

    def _catch_up(self) -> bool:
        """Read the whole lines that are new; ``False`` where the file ends with half a line.

        That one was being written when its process was killed. Where only its line feed is
        missing it can be read, but not written behind.
        """
        try:
            with self.path.open("rb") as handle:
                handle.seek(self._read_to)
                for line in handle:
                    if not line.endswith(b"\n") and (self._writes or not _is_json(line)):
                        return False
                    self._lines += 1
                    self._take(line, f"{self.path}, row {self._lines}")
                    self._read_to += len(line)
        except OSError as error:
            raise OVDError(f"{self.path}: cannot be read ({error.strerror})") from error
        return True

    def _take(self, line: bytes, where: str) -> None:
        try:
            row = json.loads(line)
            if self._lines == 1:
                self._take_header(row, where)
                return
            key = (row.get("scope", ""), row["query"], row["k"])
            results = tuple(SearchResult(**result) for result in row["results"])
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            what = "not a cassette" if self._lines == 1 else "not a recorded search"
            raise OVDError(f"{where}: {what} ({type(error).__name__}: {error})") from error
        self.has_scopes = self.has_scopes or bool(key[0])
        self._numbers.setdefault(key[:2], set()).add(key[2])
        self._rows.setdefault(key, results)

    def _take_header(self, header: dict[str, Any], where: str) -> None:
        if header["cassette"] != SCHEMA:
            raise OVDError(
                f"{where}: a cassette of version {header['cassette']!r}, expected {SCHEMA}"
            )
        self.engine_name = str(header["engine"])


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Nobody else writes to ``path`` meanwhile (a lock that ends with its process)."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise OVDError(f"{path}: cannot be written ({error.strerror})") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
