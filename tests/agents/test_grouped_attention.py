"""Grouped attention beside transformers' own, and that it is used where it pays, and only there."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.integrations import sdpa_attention

from agents.grouped_attention import grouped, grouped_attention
from agents.protocol import Request
from agents.transformers_backend import TransformersBackend
from tests.tiny import tiny_model, tiny_tokenizer


@given(
    batch=st.integers(1, 4),
    heads=st.integers(1, 3),
    groups=st.integers(1, 4),
    tokens=st.integers(1, 5),
    past=st.integers(0, 9),
    mask=st.sampled_from(["none", "causal", "padded"]),
    scaling=st.sampled_from([None, 0.7]),
)
@settings(deadline=None, max_examples=200)
def test_it_is_transformers_attention(batch, heads, groups, tokens, past, mask, scaling):
    generator = torch.Generator().manual_seed(batch * 100 + past)
    columns = tokens + past
    if mask == "none" and tokens > 1:
        columns = tokens  # that is how transformers asks for plain causal attention
    query = torch.randn(batch, heads * groups, tokens, 8, generator=generator)
    key = torch.randn(batch, heads, columns, 8, generator=generator)
    value = torch.randn(batch, heads, columns, 8, generator=generator)
    seen = None
    if mask != "none":
        seen = torch.ones(tokens, columns).tril(columns - tokens).bool().expand(batch, 1, -1, -1)
        if mask == "padded":
            first = torch.arange(batch).clamp(max=columns - tokens)
            seen = seen & (torch.arange(columns) >= first[:, None])[:, None, None]
    module = SimpleNamespace(num_key_value_groups=groups, is_causal=True)
    expected, _ = sdpa_attention.sdpa_attention_forward(
        module, query, key, value, seen, scaling=scaling
    )
    found, _ = grouped_attention(module, query, key, value, seen, scaling=scaling)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=1e-6)


def test_a_bias_of_positions_is_left_to_transformers():
    module = SimpleNamespace(num_key_value_groups=2, is_causal=True)
    query, key = torch.randn(1, 4, 1, 8), torch.randn(1, 2, 5, 8)
    seen = torch.ones(1, 1, 1, 5, dtype=torch.bool)
    bias = torch.randn(1, 4, 1, 5)
    asked = (module, query, key, key, seen)
    expected, _ = sdpa_attention.sdpa_attention_forward(*asked, position_bias=bias)
    found, _ = grouped_attention(*asked, position_bias=bias)
    assert torch.equal(found, expected)


def test_the_model_attends_so_within_the_block_alone():
    model = tiny_model()
    with grouped(model):
        assert model.config._attn_implementation == "ovd_grouped"
    with pytest.raises(KeyError), grouped(model):
        raise KeyError
    assert model.config._attn_implementation == "sdpa"
    model.config._attn_implementation = "eager"
    with grouped(model):
        assert model.config._attn_implementation == "eager"


def test_no_keys_are_repeated_while_sampling(monkeypatch):
    asked = []
    repeat = sdpa_attention.repeat_kv
    monkeypatch.setattr(
        sdpa_attention, "repeat_kv", lambda x, n: asked.append(x.shape) or repeat(x, n)
    )
    backend = TransformersBackend(tiny_model(), tiny_tokenizer())
    requests = [Request([1, 2, 3], 5, key=(0,)), Request([5], 4, key=(1,))]
    with_it = backend.generate(requests)
    assert not asked
    backend.model(torch.tensor([[0, 1, 2]]), attention_mask=torch.tensor([[0, 1, 1]]))
    assert asked  # elsewhere transformers goes on as it does
    assert len(with_it) == 2
