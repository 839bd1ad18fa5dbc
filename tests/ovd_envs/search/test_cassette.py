"""Cassettes: bit for bit, misses, kills, several recorders, engines that are told the task."""

import fcntl
import json
import multiprocessing
import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovd_envs.errors import OVDError
from ovd_envs.search import QueryError, SearchError, SearchResult, make_engine, search_engines
from ovd_envs.search.cassette import CassetteEngine, record
from ovd_envs.search.hybrid import HybridEngine
from ovd_envs.task import Task

any_text = st.text(st.characters(exclude_categories=()), max_size=10)
any_results = st.lists(
    st.builds(
        SearchResult,
        id=any_text,
        title=any_text,
        text=any_text,
        url=any_text,
        score=st.floats(),
    ),
    max_size=3,
)


class Counting:
    """Ranked results; knows what it was asked."""

    name = "counting"

    def __init__(self):
        self.asked = []

    def search(self, queries, k):
        self.asked.append((list(queries), k))
        return [
            [SearchResult(f"{q}-{i}", f"T{i}", q, "http://x", 1 / (3 + i)) for i in range(k)]
            for q in queries
        ]


def bits(found):
    return [[(r.id, r.title, r.text, r.url, r.score.hex()) for r in results] for results in found]


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.tuples(any_text, st.integers(1, 3)), any_results, max_size=4))
def test_what_was_recorded_comes_back_bit_for_bit(tmp_path_factory, searches):
    class Given:
        name = "given"

        def search(self, queries, k):
            return [searches[q, k] for q in queries]

    path = tmp_path_factory.mktemp("tape") / "tape.jsonl"
    engine = record(Given(), path)
    for query, k in searches:
        engine.search([query], k)
    engine.close()
    if not searches:
        return
    replayed = CassetteEngine(path)
    for (query, k), results in searches.items():
        assert bits(replayed.search([query], k)) == bits([results])


def test_each_search_is_asked_for_and_kept_once(tmp_path):
    inner, path = Counting(), tmp_path / "deep" / "tape.jsonl"
    engine = record(inner, path)
    first = engine.search(["a", "b", "a"], 2)
    assert engine.search(["b", "c"], 2) == Counting().search(["b", "c"], 2)
    engine.search(["a"], 3)
    engine.close()
    assert first == Counting().search(["a", "b", "a"], 2)
    assert inner.asked == [(["a", "b"], 2), (["c"], 2), (["a"], 3)]
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows[0] == {"cassette": 1, "engine": "counting"}
    assert [(row["query"], row["k"]) for row in rows[1:]] == [
        ("a", 2),
        ("b", 2),
        ("c", 2),
        ("a", 3),
    ]


def test_recording_goes_on_where_it_stopped(tmp_path):
    path = tmp_path / "tape.jsonl"
    record(Counting(), path).search(["a"], 2)
    inner = Counting()
    record(inner, path).search(["a", "b"], 2)
    assert inner.asked == [(["b"], 2)]
    assert CassetteEngine(path).search(["b", "a"], 2) == Counting().search(["b", "a"], 2)


def test_a_miss_is_an_error_that_says_what_to_do(tmp_path):
    path = tmp_path / "tape.jsonl"
    record(Counting(), path).search(["a"], 2)
    engine = CassetteEngine(path)
    with pytest.raises(QueryError) as caught:
        engine.search(["a", "b"], 2)
    assert str(caught.value) == (
        f"{path}: no search for 'b' with k 2 was recorded; "
        "record it with 'record': the engine to ask"
    )
    with pytest.raises(SearchError, match=r"it was recorded with k 2 \('prefix': true answers"):
        engine.search(["a"], 1)
    with pytest.raises(SearchError, match=r"it was recorded with k 2$"):
        engine.search(["a"], 3)
    for near in ("A", "a ", ""):
        with pytest.raises(SearchError):
            engine.search([near], 2)


def test_fewer_results_than_recorded_only_where_that_was_declared(tmp_path):
    path = tmp_path / "tape.jsonl"
    engine = record(Counting(), path)
    engine.search(["a"], 5)
    engine.search(["a"], 3)
    engine = CassetteEngine(path, prefix=True)
    for k in range(1, 6):
        assert engine.search(["a"], k) == Counting().search(["a"], k)
    with pytest.raises(SearchError):
        engine.search(["a"], 6)


def test_from_the_registry(tmp_path):
    path = tmp_path / "tape.jsonl"
    if "counting" not in search_engines.names():
        search_engines.register("counting", Counting, "for tests")
    spec = {"name": "cassette", "file": str(path), "record": {"name": "counting"}}
    recorded = make_engine(spec).search(["a"], 2)
    engine = make_engine(f"cassette:{path}")
    assert engine.search(["a"], 2) == recorded
    assert engine.name == "cassette:counting"


def test_replaying_writes_nothing(tmp_path):
    path = tmp_path / "tape.jsonl"
    record(Counting(), path).search(["a"], 2)
    path.chmod(0o400)
    before = path.read_bytes(), path.stat().st_mtime_ns
    CassetteEngine(path).search(["a"], 2)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_a_kill_at_any_byte_loses_at_most_the_last_search(tmp_path):
    whole = tmp_path / "whole.jsonl"
    engine = record(Counting(), whole)
    engine.search(["a", "b"], 1)
    data = whole.read_bytes()
    lines = data.splitlines(keepends=True)
    cut = tmp_path / "cut.jsonl"
    for length in range(len(data)):
        cut.write_bytes(data[:length])
        # A line that lacks its line feed alone is whole.
        kept = sum(length >= len(b"".join(lines[:n])) - 1 for n in range(1, len(lines) + 1))
        if kept:
            replayed = CassetteEngine(cut)
            for query in "ab"[: kept - 1]:
                assert replayed.search([query], 1) == Counting().search([query], 1)
            with pytest.raises(SearchError):
                replayed.search(["b"] if kept < 3 else ["c"], 1)
        inner = Counting()
        record(inner, cut).search(["a", "b"], 1)
        assert sum(len(queries) for queries, _ in inner.asked) == 2 - max(kept - 1, 0)
        assert cut.read_bytes() == data


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "not a cassette"),
        (b'{"question": "a"}\n', "not a cassette"),
        (b"[1]\n", "row 1: not a cassette"),
        (b"garbage\n", "not a cassette"),
        (b'{"cassette": 2, "engine": "x"}\n', "row 1: a cassette of version 2, expected 1"),
        (b'{"cassette": 1, "engine": "x"}\n{"query": "a"}\n', "row 2: not a recorded search"),
        (b'{"cassette": 1, "engine": "x"}\ngarbage\n', "row 2: not a recorded search"),
        (
            b'{"cassette": 1, "engine": "x"}\n{"query": "a", "k": 1, "results": [{"x": 1}]}\n',
            "row 2: not a recorded search",
        ),
    ],
)
def test_what_is_no_cassette(tmp_path, content, told):
    path = tmp_path / "tape.jsonl"
    path.write_bytes(content)
    with pytest.raises(OVDError) as caught:
        CassetteEngine(path)
    assert str(caught.value).startswith(str(path))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b'{"question": "a"}\n', b"a text", b'{"query": "half a'])
def test_another_file_given_by_mistake_stays_as_it_is(tmp_path, content):
    path = tmp_path / "tape.jsonl"
    path.write_bytes(content)
    with pytest.raises(OVDError, match="not a cassette; record into another file"):
        record(Counting(), path)
    assert path.read_bytes() == content


def test_a_missing_file_and_another_engine_are_named(tmp_path):
    path = tmp_path / "tape.jsonl"
    with pytest.raises(OVDError, match=r"tape\.jsonl: cannot be read"):
        CassetteEngine(path)
    assert not path.exists()
    record(Counting(), path).search(["a"], 1)
    other = Counting()
    other.name = "other"
    with pytest.raises(OVDError, match="recorded from engine 'counting', not from 'other'"):
        record(other, path)


def test_an_engine_that_gives_too_few_lists_is_not_recorded(tmp_path):
    class Short(Counting):
        def search(self, queries, k):
            return super().search(queries[1:], k)

    engine = record(Short(), tmp_path / "tape.jsonl")
    with pytest.raises(SearchError, match="counting: 1 lists of results for 2 queries"):
        engine.search(["a", "b"], 1)
    assert len((tmp_path / "tape.jsonl").read_text().splitlines()) == 1


class Slow(Counting):
    """Takes a moment for each call; the first ``failures`` of them fail."""

    def __init__(self, failures=0):
        super().__init__()
        self.failures = failures
        self.begun = self.goes_on = None

    def search(self, queries, k):
        found = super().search(queries, k)
        time.sleep(0.01)
        if self.goes_on is not None:
            self.begun.set()
            assert self.goes_on.wait(30)
        if len(self.asked) <= self.failures:
            raise SearchError("down")
        return found


def at_once(searches):
    """What each of the functions gives, all begun at the same moment in threads."""
    barrier = threading.Barrier(len(searches))

    def run(search):
        barrier.wait(10)
        return search()

    with ThreadPoolExecutor(len(searches)) as pool:
        return [future.result(60) for future in [pool.submit(run, s) for s in searches]]


def test_threads_that_want_the_same_ask_once(tmp_path):
    inner = Slow()
    engine = record(inner, tmp_path / "tape.jsonl")
    found = at_once([lambda: engine.search(["a"], 2)] * 8)
    assert inner.asked == [(["a"], 2)]
    assert found == [Counting().search(["a"], 2)] * 8


def test_threads_that_want_some_of_the_same_do_not_wait_for_each_other_for_ever(tmp_path):
    inner = Slow()
    engine = record(inner, tmp_path / "tape.jsonl")
    rng = random.Random(0)
    wanted = [rng.sample("abcdefgh", 5) for _ in range(12)]
    found = at_once([lambda queries=queries: engine.search(queries, 1) for queries in wanted])
    assert found == [Counting().search(queries, 1) for queries in wanted]
    asked = [query for queries, _ in inner.asked for query in queries]
    assert sorted(asked) == sorted({query for queries in wanted for query in queries})


def test_who_waited_for_a_search_that_failed_asks_itself(tmp_path):
    inner = Slow(failures=2)
    engine = record(inner, tmp_path / "tape.jsonl")

    def search():
        try:
            return engine.search(["a"], 1)
        except SearchError as error:
            return str(error)

    found = at_once([search] * 5)
    assert found.count("down") == 2
    assert found.count(Counting().search(["a"], 1)) == 3
    assert len(inner.asked) == 3


def test_a_forked_child_asks_itself_for_what_its_parent_is_asking(tmp_path):
    """The thread that would answer it is the parent's."""
    inner = Slow()
    inner.begun, inner.goes_on = threading.Event(), threading.Event()
    engine = record(inner, tmp_path / "tape.jsonl")
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(engine.search, ["a"], 1)
        assert inner.begun.wait(10)
        child = multiprocessing.get_context("fork").Process(target=_search_freely, args=[engine])
        child.start()
        child.join(10)
        ended = child.exitcode
        child.kill()
        inner.goes_on.set()
        assert asked.result(10) == Counting().search(["a"], 1)
    assert ended == 0


def _search_freely(engine):
    engine._engine.goes_on = None
    assert engine.search(["a"], 1) == Counting().search(["a"], 1)


def test_a_last_line_without_its_end_is_not_written_behind(tmp_path):
    """Another process was killed between a row and its line feed."""
    path = tmp_path / "tape.jsonl"
    engine = record(Counting(), path)
    engine.search(["a"], 1)
    with path.open("ab") as file:
        file.write(json.dumps({"query": "b", "k": 1, "results": []}).encode())
    engine.search(["c"], 1)
    assert [json.loads(line)["query"] for line in path.read_text().splitlines()[1:]] == [*"abc"]
    assert CassetteEngine(path).search(["b", "c"], 1) == [[], *Counting().search(["c"], 1)]


def _record(path, name, start, queries):
    class Mine(Counting):
        def search(self, queries, k):
            return [[SearchResult(name, "", q * 2000)] for q in queries]

    engine = record(Mine(), path)
    start.wait(20)
    for query in queries:
        engine.search([query], 1)


def _write_half_a_line(path):
    engine = record(Counting(), path)
    log = engine._tape._log
    log._handle.write(b'{"query": "half')
    log._handle.flush()
    os.kill(os.getpid(), signal.SIGKILL)


def test_several_processes_record_into_one_file(tmp_path):
    """Each search stands there once, and all agree on it; one that was killed harms nobody."""
    path, context = tmp_path / "tape.jsonl", multiprocessing.get_context("fork")
    start = context.Event()
    queries = [str(n) for n in range(40)]
    workers = [
        context.Process(target=_record, args=(path, f"w{n}", start, queries)) for n in range(4)
    ]
    survivor = record(Counting(), path)
    for worker in workers:
        worker.start()
    killed = context.Process(target=_write_half_a_line, args=(path,))
    killed.start()
    killed.join(20)
    start.set()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    rows = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    assert sorted(row["query"] for row in rows) == sorted(queries)
    inner = survivor._engine
    inner.asked.clear()
    [[result]] = survivor.search(["7"], 1)  # asked, but the file's answer counts
    assert result.id in {f"w{n}" for n in range(4)}
    assert len(path.read_text().splitlines()) == 41


def test_nobody_writes_while_another_does(tmp_path):
    path = tmp_path / "tape.jsonl"
    engine = record(Counting(), path)
    before = path.read_bytes()
    recording = threading.Thread(target=engine.search, args=(["a"], 1))
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        recording.start()
        recording.join(0.1)
        assert recording.is_alive()
        assert path.read_bytes() == before
    recording.join(10)
    assert path.read_bytes() != before


class Told(Counting):
    """An engine that is told the task."""

    name = "told"

    def for_task(self, task, *, training_step):
        view = Counting()
        view.search = lambda queries, k: [
            [SearchResult(f"{task.id} {training_step} {q}", "", "")] for q in queries
        ]
        return view


def test_each_task_has_its_own_recordings(tmp_path):
    path = tmp_path / "tape.jsonl"
    one, two = (Task(name, "?", ("!",)) for name in ("one", "two"))

    def play(engine):
        return [
            engine.for_task(task, training_step=step).search(["q"], 1)[0][0].id
            for task in (one, two)
            for step in (3, None)
        ]

    expected = ["one 3 q", "one None q", "two 3 q", "two None q"]
    assert play(record(Told(), path)) == expected
    replayed = CassetteEngine(path)
    assert play(replayed) == expected
    with pytest.raises(SearchError, match=r"with k 1 in train/three was recorded"):
        replayed.for_task(Task("three", "?", ()), training_step=0).search(["q"], 1)
    with pytest.raises(SearchError):
        replayed.search(["q"], 1)


def test_an_engine_that_needs_no_task_is_the_same_for_all(tmp_path):
    path, task = tmp_path / "tape.jsonl", Task("one", "?", ("!",))
    recorded = record(Counting(), path).for_task(task, training_step=0).search(["q"], 1)
    assert CassetteEngine(path).for_task(task, training_step=None).search(["q"], 1) == recorded
    assert CassetteEngine(path).search(["q"], 1) == recorded


def test_a_hybrid_is_scoped_only_where_a_part_is_told_the_task(tmp_path):
    one, two = (Task(name, "?", ("!",)) for name in ("one", "two"))
    for name, part, scoped in (("plain", Counting(), False), ("told", Told(), True)):
        path = tmp_path / f"{name}.jsonl"
        inner = Counting()
        engine = record(HybridEngine([inner, part]), path)
        for task, step in ((one, 3), (two, None)):
            engine.for_task(task, training_step=step).search(["q"], 1)
        assert len(inner.asked) == (2 if scoped else 1)
        rows = [json.loads(line) for line in path.read_text().splitlines()[1:]]
        assert [row.get("scope") for row in rows] == (
            ["train/one", "eval/two"] if scoped else [None]
        )


def test_k_is_at_least_one(tmp_path):
    with pytest.raises(OVDError, match="k: expected at least 1, got 0"):
        record(Counting(), tmp_path / "tape.jsonl").search(["q"], 0)
