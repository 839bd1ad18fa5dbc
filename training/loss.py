"""The loss of a step: PPO-clip over the acting model's own tokens, and KL to the first student.

    loss = sum(w · m · l) / sum(w · m)
    l    = -min(r A, clip(r, 1 - c, 1 + c) A) + b · k3,    r = exp(logp - old)
    k3   = exp(ref - logp) - (ref - logp) - 1

over all rows of the optimizer step, whatever the micro-batches. PPO: arXiv 1707.06347, eq. 7;
k3: http://joschu.net/blog/kl-approx.html; the normalisation is TRL's ``loss_type="dapo"``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from training.packing import Batch


@dataclass(frozen=True, slots=True)
class TokenScores:
    """What a model says of the trained tokens, each of shape (trained tokens,), float32."""

    logprobs: torch.Tensor
    entropy: torch.Tensor


def score_tokens(
    model: Any, batch: Batch, *, temperature: float = 1.0, vocabulary_chunk: int = 4096
) -> TokenScores:
    """Log-probabilities of the trained tokens at ``temperature``, and the entropies.

    Hidden states are computed for all tokens, logits only for those that are trained: none ever
    stand for prompts and observations. At most ``vocabulary_chunk`` tokens at a time become
    float32.
    """
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    lowest = torch.finfo(model.dtype).min

    def only_trained(head: Any, given: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        """Of the hidden states (packs, tokens, width) those from which trained tokens follow."""
        # index_select, whose gradient is summed in a fixed order: the same bits at every run.
        return (given[0].reshape(-1, given[0].shape[-1]).index_select(0, batch.source),)

    # The model's own forward, its head told what to read: what some models do to the logits
    # afterwards (Granite divides them, Gemma 2 caps them) is done to these too.
    handle = base.get_output_embeddings().register_forward_pre_hook(only_trained)
    try:
        logits = base(
            input_ids=batch.ids,
            # Added to the attention scores: what every attention of transformers takes as it is.
            attention_mask=torch.zeros(
                batch.mask.shape, dtype=model.dtype, device=batch.mask.device
            ).masked_fill_(~batch.mask, lowest),
            position_ids=batch.positions,
            use_cache=False,
        ).logits
    finally:
        handle.remove()
    logprobs, entropies = [], []
    for some, targets in zip(
        logits.split(vocabulary_chunk), batch.targets.split(vocabulary_chunk), strict=True
    ):
        log_p = (some.float() / temperature).log_softmax(dim=-1)
        logprobs.append(log_p.gather(1, targets.unsqueeze(1)).squeeze(1))
        with torch.no_grad():
            entropies.append(-(log_p.exp() * log_p).sum(dim=-1))
    return TokenScores(torch.cat(logprobs), torch.cat(entropies))


@dataclass(frozen=True, slots=True)
class TokenLoss:
    """The loss of each trained token (without weights), and what is logged of it."""

    loss: torch.Tensor
    clipped: torch.Tensor
    kl: torch.Tensor | None


def token_loss(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    reference_logprobs: torch.Tensor | None = None,
    *,
    importance: torch.Tensor | None = None,
    clip: float = 0.2,
    kl: float = 0.0,
) -> TokenLoss:
    """PPO-clip and k3 KL for each token; all tensors are (trained tokens,), float32.

    ``importance`` weighs the surrogate, not the KL: see ``importance_weights``.
    ``clipped`` is true where the clipped branch is the one that counts, and so no gradient
    flows. ``reference_logprobs`` is needed where ``kl`` is not 0.
    """
    ratio = (logprobs - old_logprobs).exp()
    free = ratio * advantages
    bounded = ratio.clamp(1 - clip, 1 + clip) * advantages
    loss = -torch.minimum(free, bounded)
    if importance is not None:
        loss = loss * importance
    divergence = None
    if reference_logprobs is not None:
        difference = reference_logprobs - logprobs
        divergence = difference.exp() - difference - 1
        loss = loss + kl * divergence
    return TokenLoss(loss, (bounded < free).detach(), divergence)


def importance_weights(batch: Batch, old_logprobs: torch.Tensor, cap: float) -> torch.Tensor:
    """What each trained token counts for having been sampled by another engine, at most ``cap``.

    Truncated importance sampling: min(exp(old - sampler's log-probability), cap), and 1 for a
    demonstrator's tokens, which nobody sampled. (trained tokens,), float32.
    """
    ratio = (old_logprobs - batch.sampler_logprobs).exp().clamp(max=cap)
    return torch.where(batch.teacher, 1.0, ratio)
