"""Reciprocal rank fusion: the formula, ties, what makes two results one document."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovd_envs.errors import OVDError
from ovd_envs.search import SearchResult, make_engine
from ovd_envs.search.hybrid import HybridEngine, fuse
from ovd_envs.task import Task


class Fixed:
    """Finds the letters of ``order``, whatever is asked."""

    def __init__(self, order):
        self.name, self.order, self.asked, self.closed = order, order, [], False

    def search(self, queries, k):
        self.asked.append((list(queries), k))
        return [[SearchResult(c, "", c, score=9) for c in self.order[:k]] for _ in queries]

    def close(self):
        self.closed = True


def order(results):
    return "".join(result.id for result in results)


def test_the_formula():
    engine = HybridEngine([Fixed("abc"), Fixed("bdca")])
    (found,) = engine.search(["x"], 4)
    assert {r.id: r.score for r in found} == {
        "a": 1 / 61 + 1 / 64,
        "b": 1 / 62 + 1 / 61,
        "c": 1 / 63 + 1 / 63,
        "d": 1 / 62,
    }
    assert order(found) == "bacd"


def test_each_engine_is_asked_once_for_as_many():
    first, second = Fixed("ab"), Fixed("ba")
    engine = HybridEngine([first, second])
    assert len(engine.search(["x", "y"], 1)) == 2
    assert first.asked == second.asked == [(["x", "y"], 1)]
    assert engine.search([], 1) == []
    engine.close()
    assert first.closed
    assert second.closed


def test_equal_ranks_take_turns():
    assert order(HybridEngine([Fixed("abc"), Fixed("xyz")]).search(["q"], 6)[0]) == "axbycz"


@given(st.lists(st.permutations("abcdefgh"), min_size=2, max_size=4), st.integers(1, 9))
def test_against_the_definition(orders, k):
    found = fuse([Fixed(o).search(["q"], 8)[0] for o in orders], k)
    scores = {c: sum(1 / (60 + o.index(c) + 1) for o in orders) for c in "abcdefgh"}
    assert [r.score for r in found] == pytest.approx(sorted(scores.values(), reverse=True)[:k])
    assert all(r.score == pytest.approx(scores[r.id]) for r in found)


def test_the_same_id_of_other_corpora_is_not_the_same_document():
    one, two = SearchResult("0", "One", "x"), SearchResult("0", "Two", "y")
    assert [r.title for r in fuse([[one], [two]], 5)] == ["One", "Two"]
    assert len(fuse([[one], [SearchResult("0", "One", "x", score=3)]], 5)) == 1


def test_bad_input():
    with pytest.raises(OVDError, match="engines: expected two or more, got 1"):
        HybridEngine([Fixed("a")])
    with pytest.raises(OVDError, match="k: expected at least 1"):
        HybridEngine([Fixed("a"), Fixed("b")]).search(["x"], 0)


def test_it_is_made_from_a_mapping():
    engine = make_engine({"name": "hybrid", "engines": [Fixed("ab"), Fixed("cd")]})
    assert engine.name == "hybrid(ab, cd)"


def test_the_parts_are_bound_to_the_task():
    class Bound(Fixed):
        def for_task(self, task, *, training_step):
            return Fixed(f"{task.id}{training_step}")

    engine = HybridEngine([Fixed("ab"), Bound("c")]).for_task(Task("t", "?", ()), training_step=4)
    assert sorted(order(engine.search(["x"], 4)[0])) == ["4", "a", "b", "t"]
