from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from gymnasium.spaces import flatdim, flatten, flatten_space, unflatten
from hypothesis import given
from hypothesis import strategies as st

from ovd_envs import UnicodeText


@given(st.text(alphabet=st.characters(), max_size=50))
def test_any_text_is_contained_up_to_its_length(text):
    assert text in UnicodeText(50)
    assert (text in UnicodeText(10)) == (len(text) <= 10)
    assert (text in UnicodeText(50, min_length=3)) == (len(text) >= 3)


@pytest.mark.parametrize("value", [None, 5, b"bytes", ["a"], np.array("a")])
def test_other_types_are_not_contained(value):
    assert value not in UnicodeText()


@given(st.integers(0, 2**32 - 1), st.integers(0, 40), st.integers(0, 40))
def test_samples_are_in_the_space_and_follow_the_seed(seed, low, extra):
    space = UnicodeText(low + extra, min_length=low, seed=seed)
    twin = UnicodeText(low + extra, min_length=low, seed=seed)
    samples = [space.sample() for _ in range(5)]
    assert all(sample in space for sample in samples)
    assert samples == [twin.sample() for _ in range(5)]
    "".join(samples).encode()  # no lone surrogate


def test_samples_are_varied_and_short():
    space = UnicodeText(1_000_000, seed=0)
    text = "".join(space.sample() for _ in range(200))
    assert len(text) < 200 * 257
    assert any(c.isdigit() for c in text)
    for characters in ("\x00", "\n", "\u0669", "\u202e"):
        assert characters in text
    assert any(ord(c) > 0xFFFF for c in text)


def test_masks_are_refused():
    with pytest.raises(ValueError, match="masks"):
        UnicodeText(5).sample(mask=(3, None))
    with pytest.raises(ValueError, match="masks"):
        UnicodeText(5).sample(probability=(3, None))


@given(st.text(alphabet=st.characters(), max_size=20))
def test_flattening_keeps_the_text(text):
    space = UnicodeText(20)
    flat = flatten(space, text)
    assert flat.shape == (flatdim(space),)
    assert flat in flatten_space(space)
    assert unflatten(space, flat) == text


def test_equality_copies_and_pickles():
    space = UnicodeText(7, min_length=2, seed=3)
    assert space == UnicodeText(7, min_length=2)
    assert space != UnicodeText(8, min_length=2)
    twins = [copy.deepcopy(space), pickle.loads(pickle.dumps(space))]
    assert all(twin == space for twin in twins)
    sample = space.sample()
    assert [twin.sample() for twin in twins] == [sample, sample]


@pytest.mark.parametrize(("low", "high"), [(-1, 5), (6, 5)])
def test_lengths_are_checked(low, high):
    with pytest.raises(ValueError, match="length"):
        UnicodeText(high, min_length=low)
