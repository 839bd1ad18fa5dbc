"""Random numbers and the choice of the next token.

Every draw is named by (key of the reply, number of the token): neither the order nor the size of a
batch changes what a reply draws. And rounding, which the batch does change, seldom changes what is
chosen: a token is found in a tree of the vocabulary, each branch by a number of its own. One for
all, looked up in the cumulative sum of the vocabulary, would lie beside thousands of edges, each
moved by the rounding of all that stands before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

#: Branches at each place of the tree, and leaves of its lowest trees, whose sums are made first.
_BRANCHES = 8
_LEAVES = _BRANCHES**3
#: Numbers for one token: enough for a vocabulary of 16 million.
DRAWS = 8


def uniforms(key: Sequence[int], count: int) -> np.ndarray:
    """(``count``, ``DRAWS``) numbers in [0, 1), float64: those of ``count`` tokens.

    The stream is named by ``key`` (non-negative integers).
    """
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(list(key))))
    return generator.random((count, DRAWS))


def choose(
    logits: torch.Tensor, temperature: torch.Tensor, draws: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Next tokens and their log-probabilities.

    ``logits``: (batch, vocabulary) float32. ``temperature``: (batch,); 0 is greedy. ``draws``:
    (batch, ``DRAWS``) in [0, 1), used by inverse transform sampling at each branch of a tree of
    the vocabulary. Returns ids (batch,) and logprobs (batch,) at the temperature (at 1 if greedy).
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
    """Indices (batch,) into ``weights`` (batch, size), each as likely as its weight says."""
    import torch

    rows, size = weights.shape
    trees = _padded(weights, _LEAVES).view(rows, -1, _LEAVES)
    sums, above = trees.sum(dim=-1), 1
    while above < sums.shape[1]:
        above *= _BRANCHES
    tree, level = _descend(_padded(sums, above), draws, 0)
    tree = tree.clamp(max=trees.shape[1] - 1)
    leaf, _ = _descend(trees[torch.arange(rows, device=weights.device), tree], draws, level)
    return (tree * _LEAVES + leaf).clamp(max=size - 1)


def _padded(weights: torch.Tensor, multiple: int) -> torch.Tensor:
    from torch.nn.functional import pad

    missing = -weights.shape[1] % multiple
    return pad(weights, (0, missing)) if missing else weights


def _descend(weights: torch.Tensor, draws: torch.Tensor, level: int) -> tuple[torch.Tensor, int]:
    """From the root of a tree over ``weights`` (batch, a power of ``_BRANCHES``) to a leaf.

    Returns the leaves (batch,) and the next level, whose draw is not used yet.
    """
    import torch

    rows = torch.arange(len(weights), device=weights.device)
    index = torch.zeros_like(rows)
    while weights.shape[1] > 1:
        parts = weights.view(len(weights), _BRANCHES, -1)
        ends = parts.sum(dim=-1).cumsum(dim=-1)
        last = ends[:, -1]
        # A sum misses its exact value by rounding: a target at the end or beyond lies just within,
        # so that what has no weight is never found.
        target = (draws[:, level].to(last.dtype) * last).minimum(
            last.nextafter(torch.zeros_like(last))
        )
        branch = torch.searchsorted(ends, target.unsqueeze(1), right=True).squeeze(1)
        branch = branch.clamp(max=_BRANCHES - 1)  # beyond the end only where sums are NaN
        weights, index = parts[rows, branch], index * _BRANCHES + branch
        level += 1
    return index, level
