"""Searches of many callers, put together into batches of one engine."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field

from ovd_envs.search.protocol import QueryError, SearchEngine, SearchError, SearchResult

Found = list[list[SearchResult]]

_logger = logging.getLogger(__name__)


class QueueFull(Exception):
    """More queries wait than may: try again a moment later."""


@dataclass(slots=True, eq=False)
class _Call:
    """The queries of one caller, and what has been found for them so far."""

    queries: Sequence[str]
    k: int
    future: Future[Found] = field(default_factory=Future)
    found: dict[int, list[SearchResult]] = field(default_factory=dict)

    def succeed(self, place: int, results: list[SearchResult]) -> None:
        self.found[place] = results
        if len(self.found) == len(self.queries):
            _settle(self.future, [self.found[i] for i in range(len(self.queries))])


@dataclass(frozen=True, slots=True)
class _Waiting:
    """One query in the queue: number ``place`` of ``call``."""

    call: _Call
    place: int

    @property
    def query(self) -> str:
        return self.call.queries[self.place]


class Batcher:
    """Runs a blocking engine in threads of its own, on batches of whatever queries wait.

    A batch begins with the query that has waited longest and takes in others for at most
    ``wait`` seconds or until it holds ``max_batch`` queries. While the engine is busy the queue
    fills, so batches grow with the load. Queries for different numbers of results are asked
    apart, equal ones once.

    A ``SearchError`` (the engine is down) is passed to every caller of the batch. A ``QueryError``
    is the fault of one query, and any other exception may be: each caller of the batch is then
    served alone, and it goes to those whose own queries raise it.

    Args:
        engine: what is asked; with ``threads`` above 1 it must be safe to call from several.
        max_batch: queries of one call of the engine, at most.
        max_waiting: queries in the queue, at most; ``submit`` raises ``QueueFull`` past it.
        wait: seconds that a query may wait for company.
        threads: calls of the engine under way at once, at most.
        observe: called with (number of queries, seconds) after each call of the engine.
    """

    def __init__(
        self,
        engine: SearchEngine,
        *,
        max_batch: int = 64,
        max_waiting: int = 8192,
        wait: float = 0.002,
        threads: int = 1,
        observe: Callable[[int, float], None] | None = None,
    ) -> None:
        self._engine = engine
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._wait = wait
        self._observe = observe
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._count = 0  # queries in the queue or being collected
        self._count_lock = threading.Lock()
        self._collecting = threading.Lock()
        # Daemons: an engine that hangs must not keep the process from ending.
        self._threads = [
            threading.Thread(target=self._work, name=f"search-{n}", daemon=True)
            for n in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Queries that no call of the engine has taken up yet."""
        return self._count

    def submit(self, queries: Sequence[str], k: int) -> Future[Found]:
        """The results of ``queries``, later. Cancelling drops those that still wait.

        Raises ``QueueFull``.
        """
        call = _Call(queries, k)
        if not queries:
            call.future.set_result([])
            return call.future
        with self._count_lock:
            if self._count + len(queries) > self._max_waiting:
                raise QueueFull(f"{self._count} queries wait, at most {self._max_waiting} may")
            self._count += len(queries)
        for place in range(len(queries)):
            self._queue.put(_Waiting(call, place))
        return call.future

    def close(self, timeout: float = 5.0) -> None:
        """Finish what was submitted, for at most ``timeout`` seconds, and end the threads."""
        end = time.monotonic() + timeout
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _work(self) -> None:
        while True:
            # One thread collects at a time: two would share the arrivals into halves.
            with self._collecting:
                batch, ending = self._collect()
            self._serve(batch)
            if ending:
                return

    def _collect(self) -> tuple[list[_Waiting], bool]:
        """The next batch, and whether the end was called while it was collected."""
        batch: list[_Waiting] = []
        deadline = 0.0
        while len(batch) < self._max_batch:
            try:
                if batch:
                    item = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
                else:
                    item = self._queue.get()
            except queue.Empty:
                break
            if item is None:
                return batch, True
            with self._count_lock:
                self._count -= 1
            if item.call.future.done():  # cancelled, or failed already
                continue
            if not batch:
                deadline = time.monotonic() + self._wait
            batch.append(item)
        return batch, False

    def _serve(self, batch: Sequence[_Waiting]) -> None:
        groups: dict[int, list[_Waiting]] = {}
        for item in batch:
            groups.setdefault(item.call.k, []).append(item)
        todo = deque(groups.values())  # a group that failed comes back caller by caller
        while todo:
            items = todo.popleft()
            try:
                results = self._ask(items)
            except Exception as error:  # whatever an engine raises, its callers must hear of it
                if isinstance(error, QueryError) and error.engine == self._engine.name:
                    for item in items:
                        if item.query in error.found:  # paid for, perhaps
                            item.call.succeed(item.place, list(error.found[item.query]))
                    items = [item for item in items if item.query not in error.found]
                calls = {id(item.call): item.call for item in items}
                expected = isinstance(error, SearchError)
                if len(calls) > 1 and (not expected or isinstance(error, QueryError)):
                    todo.extend([i for i in items if i.call is call] for call in calls.values())
                    continue
                if not expected:
                    _logger.exception("search engine %r failed", self._engine.name)
                _fail(items, error)
            else:
                for item in items:
                    item.call.succeed(item.place, results[item.query])

    def _ask(self, items: Sequence[_Waiting]) -> dict[str, list[SearchResult]]:
        queries = list(dict.fromkeys(item.query for item in items))
        began = time.perf_counter()
        found = self._engine.search(queries, items[0].call.k)
        if self._observe is not None:
            self._observe(len(queries), time.perf_counter() - began)
        if len(found) != len(queries):
            raise ValueError(f"{len(found)} lists of results for {len(queries)} queries")
        return dict(zip(queries, found, strict=True))


def _fail(items: Sequence[_Waiting], error: Exception) -> None:
    for call in {id(item.call): item.call for item in items}.values():
        _settle(call.future, error)


def _settle(future: Future[Found], outcome: Found | Exception) -> None:
    try:
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
    except InvalidStateError:
        pass  # the caller has left, or another part of the call failed before


__all__ = ["Batcher", "QueueFull"]
