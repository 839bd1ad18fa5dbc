"""Searches of many callers in batches: order, bounds, whose fault a failure is."""

import threading
import time
from concurrent.futures import CancelledError

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovd_envs.search import QueryError, SearchError, SearchResult
from ovd_envs.search.batching import Batcher, QueueFull


class Echo:
    """Finds for each query results that name it; waits for ``gate`` where there is one."""

    name = "echo"

    def __init__(self, gate=None, bad=()):
        self.calls, self.gate, self.bad = [], gate, bad

    def search(self, queries, k):
        if self.gate:
            assert self.gate.wait(10)
        self.calls.append((list(queries), k))
        for query in queries:
            if query in self.bad:
                raise self.bad[query]
        return [[SearchResult(f"{q}/{i}", "", q) for i in range(k)] for q in queries]


def ids(found):
    return [[result.id for result in results] for results in found]


def expected(queries, k):
    return [[f"{q}/{i}" for i in range(k)] for q in queries]


@pytest.fixture
def batcher_of():
    made = []

    def make(engine, **options):
        made.append(Batcher(engine, **options))
        return made[-1]

    yield make
    for batcher in made:
        batcher.close()


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(st.sampled_from("abcdef"), max_size=7), st.integers(1, 3)), max_size=8
    ),
    st.integers(1, 5),
    st.integers(1, 3),
)
def test_everyone_gets_their_own_results(calls, max_batch, threads):
    engine = Echo()
    batcher = Batcher(engine, max_batch=max_batch, threads=threads, wait=0.0)
    futures = [batcher.submit(queries, k) for queries, k in calls]
    for (queries, k), future in zip(calls, futures, strict=True):
        assert ids(future.result(10)) == expected(queries, k)
    batcher.close()
    assert all(len(queries) <= max_batch for queries, _ in engine.calls)
    assert batcher.waiting == 0


def test_what_waits_is_asked_together(batcher_of):
    gate = threading.Event()
    engine = Echo(gate)
    batcher = batcher_of(engine, max_batch=10, wait=0.0)
    first = batcher.submit(["first"], 1)
    while batcher.waiting:  # the engine has it
        time.sleep(0.001)
    rest = [batcher.submit([f"q{n}"], 1) for n in range(12)] + [batcher.submit(["q0"], 2)]
    gate.set()
    for future in [first, *rest]:
        future.result(10)
    assert engine.calls[0] == (["first"], 1)
    assert engine.calls[1] == ([f"q{n}" for n in range(10)], 1)
    assert sorted(engine.calls[2:]) == [(["q0"], 2), (["q10", "q11"], 1)]


def test_a_query_waits_for_company_at_most_as_long_as_told(batcher_of):
    engine = Echo()
    batcher = batcher_of(engine, max_batch=2, wait=30.0)
    futures = [batcher.submit(["a"], 1), batcher.submit(["b"], 1)]  # a full batch need not wait
    for future in futures:
        future.result(10)
    assert engine.calls == [(["a", "b"], 1)]
    alone = batcher_of(engine, max_batch=2, wait=0.01).submit(["c"], 1)
    assert ids(alone.result(10)) == [["c/0"]]


def test_equal_queries_are_asked_once(batcher_of):
    engine = Echo()
    assert ids(batcher_of(engine, wait=0.0).submit(["a", "b", "a"], 1).result(10)) == [
        ["a/0"],
        ["b/0"],
        ["a/0"],
    ]
    assert sum(len(queries) for queries, _ in engine.calls) <= 3


def test_a_full_queue_refuses_and_recovers(batcher_of):
    gate = threading.Event()
    batcher = batcher_of(Echo(gate), max_batch=1, max_waiting=3, wait=0.0)
    running = batcher.submit(["a"], 1)
    while batcher.waiting:
        time.sleep(0.001)
    waiting = batcher.submit(["b", "c"], 1)
    with pytest.raises(QueueFull, match="2 queries wait, at most 3 may"):
        batcher.submit(["d", "e"], 1)
    fits = batcher.submit(["f"], 1)
    gate.set()
    for future in (running, waiting, fits):
        future.result(10)
    assert ids(batcher.submit(["d", "e"], 1).result(10)) == [["d/0"], ["e/0"]]


def test_a_query_that_breaks_the_engine_hurts_nobody_else(batcher_of):
    gate = threading.Event()
    engine = Echo(gate, bad={"bad": ZeroDivisionError("a bug")})
    batcher = batcher_of(engine, wait=0.05)
    good = batcher.submit(["good", "other"], 1)
    bad = batcher.submit(["fine", "bad"], 1)
    late = batcher.submit(["late"], 1)
    gate.set()
    assert ids(good.result(10)) == [["good/0"], ["other/0"]]
    assert ids(late.result(10)) == [["late/0"]]
    with pytest.raises(ZeroDivisionError):
        bad.result(10)


def test_a_query_that_is_refused_fails_alone(batcher_of, caplog):
    gate = threading.Event()
    engine = Echo(gate, bad={"bad": QueryError("HTTP 400")})
    batcher = batcher_of(engine, wait=0.05)
    good, bad = batcher.submit(["good", "other"], 1), batcher.submit(["fine", "bad"], 1)
    gate.set()
    assert ids(good.result(10)) == [["good/0"], ["other/0"]]
    with pytest.raises(QueryError, match="HTTP 400"):
        bad.result(10)
    assert not caplog.records  # it is no bug


def test_what_was_found_beside_a_refused_query_is_not_asked_again(batcher_of):
    gate = threading.Event()
    found = {query: [SearchResult(f"{query}/0", "", query)] for query in ("good", "fine")}
    engine = Echo(gate, bad={"bad": QueryError("HTTP 400", Echo.name, found)})
    batcher = batcher_of(engine, wait=0.05)
    good, bad = batcher.submit(["good"], 1), batcher.submit(["fine", "bad"], 1)
    gate.set()
    assert ids(good.result(10)) == [["good/0"]]
    with pytest.raises(QueryError, match="HTTP 400"):
        bad.result(10)
    assert engine.calls == [(["good", "fine", "bad"], 1)]


def test_an_engine_that_is_down_is_asked_once(batcher_of):
    gate = threading.Event()
    engine = Echo(gate, bad={"a": SearchError("down")})
    batcher = batcher_of(engine, wait=0.05)
    futures = [batcher.submit([q], 1) for q in "abc"]
    gate.set()
    for future in futures:
        with pytest.raises(SearchError, match="down"):
            future.result(10)
    assert len(engine.calls) == 1


def test_too_few_results_are_an_error(batcher_of):
    class Short:
        name = "short"

        def search(self, queries, k):
            return []

    with pytest.raises(ValueError, match="0 lists of results for 1 queries"):
        batcher_of(Short()).submit(["a"], 1).result(10)


def test_a_cancelled_call_is_not_searched_for(batcher_of):
    gate = threading.Event()
    engine = Echo(gate)
    batcher = batcher_of(engine, max_batch=1, wait=0.0)
    running = batcher.submit(["a"], 1)
    while batcher.waiting:
        time.sleep(0.001)
    dropped = batcher.submit(["b", "c"], 1)
    assert dropped.cancel()
    kept = batcher.submit(["d"], 1)
    gate.set()
    running.result(10)
    kept.result(10)
    with pytest.raises(CancelledError):
        dropped.result(0)
    assert [queries for queries, _ in engine.calls] == [["a"], ["d"]]


def test_close_finishes_what_was_submitted():
    batcher = Batcher(Echo(), threads=2)
    futures = [batcher.submit([f"q{n}"], 1) for n in range(200)]
    batcher.close()
    assert [ids(future.result(0)) for future in futures] == [[[f"q{n}/0"]] for n in range(200)]


def test_close_does_not_wait_for_an_engine_that_hangs():
    gate = threading.Event()
    batcher = Batcher(Echo(gate))
    future = batcher.submit(["a"], 1)
    batcher.close(timeout=0.05)
    assert not future.done()
    gate.set()
    future.result(10)
