"""Attention of grouped queries without a copy of the keys and values for each query head.

Where there is a mask, transformers repeats keys and values for every query head that shares them
(three times in SmolLM2, four to eight in Llama and Qwen) before it calls PyTorch's attention: at
each token, of the whole cache. The queries that share a head can as well be rows of one query.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

_NAME = "ovd_grouped"


def grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers' "sdpa" gives: ((batch, tokens, query heads, width), no weights).

    ``query``: (batch, query heads, tokens, width). ``key``, ``value``: (batch, heads, columns,
    width). ``attention_mask``: (batch, 1, tokens, columns) or ``None``.
    """
    batch, query_heads, tokens, width = query.shape
    heads = key.shape[1]
    groups = query_heads // heads
    plain = groups == 1 or (attention_mask is None and tokens > 1)
    biased = options.get("position_bias") is not None
    if plain or biased or (attention_mask is not None and attention_mask.shape[1] != 1):
        return sdpa_attention_forward(  # type: ignore[no-any-return]
            module, query, key, value, attention_mask, dropout, scaling, **options
        )
    if attention_mask is not None and tokens > 1:
        attention_mask = attention_mask.repeat(1, 1, groups, 1)
    output = torch.nn.functional.scaled_dot_product_attention(
        query.reshape(batch, heads, groups * tokens, width),
        key,
        value,
        attn_mask=attention_mask,
        dropout_p=dropout,
        scale=scaling,
    )
    return output.reshape(batch, query_heads, tokens, -1).transpose(1, 2), None


AttentionInterface.register(_NAME, grouped_attention)
AttentionMaskInterface.register(_NAME, sdpa_mask)


@contextmanager
def grouped(model: Any) -> Iterator[None]:
    """Let ``model`` attend so within the block, where it attends by "sdpa" otherwise."""
    config = model.config
    if config._attn_implementation != "sdpa":
        yield
        return
    config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = "sdpa"
