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

#: Tokens whose probabilities are summed before the draw is looked for: near the square root of
#: a vocabulary.
_BLOCK = 256


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
    scaled = logits - logits.amax(dim=-1, keepdim=True)
    if not bool(((temperature == 1) | greedy).all()):
        scaled /= torch.where(greedy, 1.0, temperature).unsqueeze(1)
    weights = scaled.exp()
    sampled = _at_draw(weights, draws)
    ids = torch.where(greedy, logits.argmax(dim=-1), sampled) if bool(greedy.any()) else sampled
    chosen = scaled.gather(1, ids.unsqueeze(1)).squeeze(1)
    return ids, chosen - weights.sum(dim=-1).log()


def _at_draw(weights: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Where the cumulative share of ``weights`` passes ``draws``: (batch,) indices.

    First among sums of blocks, then within one: a cumulative sum of the vocabulary costs more
    than all the rest of sampling.
    """
    import torch
    from torch.nn.functional import pad

    rows, size = weights.shape
    if size % _BLOCK:
        weights = pad(weights, (0, -size % _BLOCK))
    blocks = weights.view(rows, -1, _BLOCK)
    ends = blocks.sum(dim=-1).cumsum(dim=-1)
    block, rest = _passing(ends, draws.to(ends.dtype) * ends[:, -1])
    within = blocks[torch.arange(rows, device=weights.device), block].cumsum(dim=-1)
    place, _ = _passing(within, rest)
    return (block * _BLOCK + place).clamp(max=size - 1)


def _passing(ends: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where rising sums first exceed ``target``: (indices, what of it lies beyond the sum before).

    A sum misses its exact value by rounding: a target at its end or beyond lies just within, so
    that what has no weight is never found.
    """
    import torch

    last = ends[:, -1]
    target = torch.minimum(target, last.nextafter(torch.zeros_like(last)))
    index = torch.searchsorted(ends, target.unsqueeze(1), right=True).squeeze(1)
    index = index.clamp(max=ends.shape[1] - 1)  # beyond the end only where sums are NaN
    before = torch.where(index > 0, ends.gather(1, (index - 1).clamp(min=0).unsqueeze(1))[:, 0], 0)
    return index, target - before
