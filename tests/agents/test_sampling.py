"""Sampling: the softmax's own frequencies, never an impossible token, streams by name."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from agents.sampling import DRAWS, choose, uniforms

#: The 99.9 % point of chi-square with 11 degrees of freedom.
CHI_SQUARE_11 = 31.26

draw = st.one_of(
    st.sampled_from([0.0, 2**-60, 0.5, 1 - 2**-24, 1 - 2**-25, 1 - 2**-53]),
    st.floats(0, 1, exclude_max=True),
)
logit = st.one_of(st.just(-math.inf), st.floats(-300, 300, width=32), st.floats(-3, 3, width=32))
row = st.lists(logit, min_size=1, max_size=40).filter(lambda r: max(r) > -math.inf)
temperature = st.floats(0.0625, 5, width=32)


def one(logits, temperature, draw):
    ids, logprobs = choose(
        torch.tensor([logits], dtype=torch.float32),
        torch.tensor([temperature]),
        torch.full((1, DRAWS), draw, dtype=torch.float64),
    )
    return ids.item(), logprobs.item()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_frequencies_are_those_of_the_softmax(temperature):
    count = 40_000
    logits = torch.tensor([2.0, -1.0, 0.3, 1.2, -0.4, 0.9, -2.0, 0.0, 1.9, -1.5, 0.6, -0.8])
    draws = torch.from_numpy(uniforms((7, 1), count))
    ids, _ = choose(logits.expand(count, 12), torch.full((count,), temperature), draws)
    expected = (logits.double() / temperature).softmax(0).numpy() * count
    observed = np.bincount(ids.numpy(), minlength=12)
    assert expected.min() > 5
    assert float(((observed - expected) ** 2 / expected).sum()) < CHI_SQUARE_11


def test_a_long_flat_tail_keeps_its_share():
    # 4,999 tokens share 10 % of the mass.
    count, size = 4000, 5000
    logits = torch.zeros(count, size)
    logits[:, 0] = math.log(9 * (size - 1))
    ids, _ = choose(logits, torch.ones(count), torch.from_numpy(uniforms((3,), count)))
    edges = [0, 1, *(1 + np.arange(1, 11) * (size - 1) // 10)]
    observed = np.histogram(ids.numpy(), bins=edges)[0]
    expected = np.array([0.9, *[0.01] * 10]) * count
    assert ((observed - expected) ** 2 / expected).sum() < 29.59  # 99.9 %, 10 degrees


def leaf(weights: np.ndarray, draws: np.ndarray) -> tuple[int, float]:
    """Where the draws lead, in float64, and how far the nearest of them was from an edge."""
    place, margin = 0, 1.0
    trees = math.ceil(len(weights) / 512)
    size = 512
    while size < trees * 512:
        size *= 8
    for draw in draws:
        if size == 1:
            break
        part = [
            weights[place + i * size // 8 : place + (i + 1) * size // 8].sum() for i in range(8)
        ]
        ends = np.cumsum(part) / np.sum(part)
        margin = min(margin, np.abs(np.array([0, *ends[:-1]]) - draw).min())
        branch = int(np.searchsorted(ends, draw, side="right"))
        place, size = place + branch * size // 8, size // 8
    return place, margin


@pytest.mark.parametrize("size", [3, 511, 512, 513, 4096, 49_152, 151_936])
def test_each_draw_chooses_a_branch_of_the_tree(size):
    generator = torch.Generator().manual_seed(size)
    logits = torch.randn(12, size, generator=generator) * 3
    draws = uniforms((size,), 12)
    ids, _ = choose(logits, torch.ones(12), torch.from_numpy(draws))
    sure = 0
    for row, token in enumerate(ids.tolist()):
        expected, margin = leaf(logits[row].double().exp().numpy(), draws[row])
        if margin > 1e-5:
            assert token == expected
            sure += 1
    assert sure > 8


def test_rounding_rarely_changes_what_is_chosen():
    # As a batch of another size rounds: looked up in one cumulative sum, many more would change.
    generator = torch.Generator().manual_seed(0)
    changed = 0
    for number in range(40):
        logits = torch.randn(50, 49_152, generator=generator) * 2
        rounded = logits * (1 + torch.randn(logits.shape, generator=generator) * 1e-5)
        draws = torch.from_numpy(uniforms((number,), 50))
        one, _ = choose(logits, torch.ones(50), draws)
        other, _ = choose(rounded, torch.ones(50), draws)
        changed += int((one != other).sum())
    assert changed <= 2


@given(row, temperature, draw)
@settings(deadline=None, max_examples=300)
@example([0.0, -math.inf], 1.0, 1 - 2**-53)
@example([-math.inf, 0.0], 1.0, 0.0)
@example([0.0, -300.0], 1.0, 1 - 2**-53)
@example([-300.0, 0.0, -300.0], 1.0, 0.0)
def test_a_token_of_probability_0_is_never_drawn(logits, temperature, draw):
    token, logprob = one(logits, temperature, draw)
    probabilities = (torch.tensor(logits) / temperature).softmax(0)
    assert probabilities[token] > 0
    reference = (torch.tensor(logits, dtype=torch.float64) / temperature).log_softmax(0)[token]
    assert logprob == pytest.approx(reference.item(), abs=1e-4, rel=1e-5)


@given(row, temperature, draw)
@settings(deadline=None, max_examples=300)
def test_the_draw_falls_into_the_share_of_its_token(logits, temperature, draw):
    shares = (torch.tensor(logits, dtype=torch.float64) / temperature).softmax(0).numpy()
    expected, margin = leaf(shares, np.full(DRAWS, draw))
    assume(margin > 1e-5)  # on a border float32 may fall on either side
    assert one(logits, temperature, draw)[0] == expected


@given(row, draw)
@settings(deadline=None, max_examples=200)
def test_temperature_0_takes_the_likeliest_whatever_the_draw(logits, draw):
    token, logprob = one(logits, 0.0, draw)
    assert token == logits.index(max(logits))  # the first of equals
    reference = torch.tensor(logits, dtype=torch.float64).log_softmax(0)[token]
    assert logprob == pytest.approx(reference.item(), abs=1e-4, rel=1e-5)


def test_a_low_temperature_is_not_greedy():
    for low in (0.05, 0.01, 1e-3):
        logits = [0.0, low]  # 27 % and 73 %
        assert [one(logits, low, d)[0] for d in (0.0, 0.26, 0.28, 0.99)] == [0, 0, 1, 1]


@given(
    st.lists(
        st.tuples(
            st.lists(st.floats(-5, 5, width=32), min_size=7, max_size=7),
            st.one_of(st.just(0.0), temperature),
            draw,
        ),
        min_size=1,
        max_size=8,
    )
)
@settings(deadline=None, max_examples=100)
def test_rows_do_not_touch_each_other(rows):
    ids, logprobs = choose(
        torch.tensor([r[0] for r in rows]),
        torch.tensor([r[1] for r in rows]),
        torch.tensor([[r[2]] * DRAWS for r in rows], dtype=torch.float64),
    )
    alone = [one(*r) for r in rows]
    assert ids.tolist() == [token for token, _ in alone]
    assert logprobs.tolist() == pytest.approx([logprob for _, logprob in alone], abs=1e-6)


def test_whole_numbers_are_temperatures_too():
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    half = torch.full((1, DRAWS), 0.5)
    for value in (0, 1, 2):
        whole = choose(logits, torch.tensor([value]), half)
        assert whole[0].tolist() == choose(logits, torch.tensor([float(value)]), half)[0].tolist()
        assert torch.equal(whole[1], choose(logits, torch.tensor([float(value)]), half)[1])


key = st.lists(st.integers(0, 2**32 - 1), min_size=5, max_size=5).map(tuple)


@given(key, key, st.integers(1, 50), st.integers(1, 50))
@settings(deadline=None, max_examples=100)
def test_a_stream_is_named_by_its_key_alone(one, other, few, many):
    few, many = sorted((few, many))
    stream = uniforms(one, many)
    assert stream.dtype == np.float64
    assert ((stream >= 0) & (stream < 1)).all()
    # How many are asked for changes none of them: max_tokens does not change a reply.
    assert uniforms(one, few).tolist() == stream[:few].tolist()
    assert stream.shape == (many, DRAWS)
    if one != other:
        assert not np.isin(uniforms(other, few), stream).any()


def test_neighbouring_keys_have_unrelated_streams():
    # Every (task, index, turn) of a small run, first draws: uniform, and no two alike.
    firsts = np.array(
        [uniforms((0, 3, p, i, t), 1)[0, 0] for p in range(8) for i in range(8) for t in range(16)]
    )
    assert len(set(firsts.tolist())) == 1024
    observed = np.bincount((firsts * 12).astype(int), minlength=12)
    assert ((observed - 1024 / 12) ** 2 / (1024 / 12)).sum() < CHI_SQUARE_11
    assert abs(np.corrcoef(firsts[:-1], firsts[1:])[0, 1]) < 0.1
