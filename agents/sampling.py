"""Random numbers and the choice of the next token.

Every draw is named by (key of the reply, number of the token): neither the order nor the size
of a batch changes what a reply draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def uniforms(key: Sequence[int], count: int) -> np.ndarray:
    """``count`` numbers in [0, 1), float64, the stream of ``key`` (non-negative integers)."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(list(key)))).random(count)


def choose(
    logits: torch.Tensor, temperature: torch.Tensor, draws: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Next tokens and their log-probabilities.

    ``logits``: (batch, vocabulary) float32. ``temperature``: (batch,); 0 is greedy. ``draws``:
    (batch,) in [0, 1), used by inverse transform sampling: the token at which the cumulative
    probability passes the draw, with one number a token instead of one for each word of the
    vocabulary. Returns ids (batch,) and logprobs (batch,) at the temperature (at 1 if greedy).
    """
    import torch

    greedy = temperature == 0
    scaled = logits / torch.where(greedy, 1.0, temperature).unsqueeze(1)
    logprobs = scaled.log_softmax(dim=-1)
    cumulative = logprobs.exp().cumsum(dim=-1)
    # The sum may miss 1 by rounding; scaling the draw keeps the last token's share.
    below_one = draws.to(cumulative.dtype).clamp(max=1 - 2**-24)
    target = below_one.unsqueeze(1) * cumulative[:, -1:]
    sampled = torch.searchsorted(cumulative, target, right=True).squeeze(1)
    ids = torch.where(greedy, logits.argmax(dim=-1), sampled.clamp_(max=logits.shape[1] - 1))
    return ids, logprobs.gather(1, ids.unsqueeze(1)).squeeze(1)
