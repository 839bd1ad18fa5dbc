"""RoomyCache beside transformers' DynamicCache: the same keys and values at every step."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache

from agents.kv_cache import RoomyCache

LAYERS, HEADS, WIDTH = 2, 3, 4


def states(generator: torch.Generator, rows: int, tokens: int) -> torch.Tensor:
    return torch.randn(rows, HEADS, tokens, WIDTH, generator=generator)


def check(ours: RoomyCache, theirs: DynamicCache) -> None:
    assert ours.get_seq_length() == theirs.get_seq_length()
    for mine, other in zip(ours.layers, theirs.layers, strict=True):
        assert torch.equal(mine.keys, other.keys)
        assert torch.equal(mine.values, other.values)


def extend(caches, generator: torch.Generator, rows: int, tokens: int) -> None:
    """Give the same new tokens to all of ``caches``, which must return the same of them."""
    for layer in range(LAYERS):
        keys, values = states(generator, rows, tokens), states(generator, rows, tokens)
        (one, *others) = [cache.update(keys, values, layer) for cache in caches]
        for other in others:
            assert torch.equal(one[0], other[0])
            assert torch.equal(one[1], other[1])


step = st.one_of(
    st.tuples(st.just("extend"), st.integers(1, 3)),
    st.tuples(st.just("extend"), st.integers(100, 300)),
    st.tuples(st.just("keep"), st.integers(0, 2**12)),
    st.tuples(st.just("copy"), st.integers(0, 2**12)),
)


@given(st.lists(step, max_size=12), st.integers(1, 6), st.integers(0, 9))
@settings(deadline=None, max_examples=150)
def test_it_holds_what_transformers_holds(steps, rows, seed):
    generator = torch.Generator().manual_seed(seed)
    ours, theirs = RoomyCache(), DynamicCache()
    extend([ours, theirs], generator, rows, 2)
    for kind, number in steps:
        if kind == "extend":
            extend([ours, theirs], generator, rows, number)
        elif kind == "keep":
            alive = [row for row in range(rows) if number >> row & 1] or [0]
            order = ours.keep_rows(alive)
            assert sorted(order) == alive
            theirs.batch_select_indices(torch.tensor(order))
            rows = len(alive)
        else:
            index = [number >> 2 * i & 3 for i in range(4)]
            index = [row % rows for row in index]
            for cache in (ours, theirs):
                cache.batch_select_indices(torch.tensor(index))
            rows = len(index)
        check(ours, theirs)


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 5)), min_size=1, max_size=4))
@settings(deadline=None)
def test_joined_rows_end_in_the_same_column(shapes):
    generator = torch.Generator().manual_seed(0)
    parts, expected = [], []
    columns = max(tokens for _, tokens in shapes)
    for rows, tokens in shapes:
        part, same = RoomyCache(), DynamicCache()
        extend([part, same], generator, rows, tokens)
        parts.append(part)
        expected.append(same)
    joined = RoomyCache.join(parts, room=3)
    for number, layer in enumerate(joined.layers):
        wanted = [
            torch.nn.functional.pad(e.layers[number].keys, (0, 0, columns - tokens, 0))
            for e, (_, tokens) in zip(expected, shapes, strict=True)
        ]
        assert torch.equal(layer.keys, torch.cat(wanted))
    rows = sum(rows for rows, _ in shapes)
    extend([joined], generator, rows, 1)
    assert joined.get_seq_length() == columns + 1


def test_a_token_is_written_and_the_others_stay_where_they_are():
    generator = torch.Generator().manual_seed(0)
    cache = RoomyCache()
    extend([cache], generator, 2, 5)
    place = cache.layers[0].keys.data_ptr()
    for _ in range(100):
        cache.update(states(generator, 2, 1), states(generator, 2, 1), 0)
    assert cache.layers[0].keys.data_ptr() == place


@pytest.mark.parametrize("alive", [[0, 1, 2], [1], [0, 2], [2]])
def test_only_rows_that_move_are_written(alive):
    generator = torch.Generator().manual_seed(0)
    cache = RoomyCache()
    extend([cache], generator, 3, 5)
    place = cache.layers[0].keys.data_ptr()
    before = cache.layers[0].keys.clone()
    order = cache.keep_rows(alive)
    assert cache.layers[0].keys.data_ptr() == place
    assert torch.equal(cache.layers[0].keys, before[order])
