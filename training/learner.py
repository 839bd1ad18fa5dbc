"""The learner: rows in, one optimizer step, better weights. It knows no algorithm.

The weights that act and are differentiated may be bfloat16; the optimizer holds float32 masters
and writes them back after every update, so small steps are not lost to rounding.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch

from agents.transformers_backend import only_attends
from ovd_envs.errors import OVDError
from training.config import OptimizerConfig
from training.loss import importance_weights, score_tokens, token_loss
from training.packing import Batch, batches, collate, pack_rows
from training.rows import Row, total_weight


class DivergedError(OVDError, FloatingPointError):
    """A gradient that is not finite."""


class Learner:
    """A model, its float32 master weights and AdamW.

    ``temperature`` is the one that the rows were sampled at. ``importance_cap`` is given where
    another engine than this model sampled them: truncated importance sampling then corrects what
    the two disagree on (https://fengyao.notion.site/off-policy-rl). The reference of the KL is a
    frozen copy of the model as it is given here, adapter included; none is held where ``kl`` is 0.
    """

    def __init__(
        self,
        model: Any,
        options: OptimizerConfig,
        *,
        temperature: float = 1.0,
        importance_cap: float | None = None,
    ) -> None:
        self.model = model
        self.options = options
        self.temperature = temperature
        self.importance_cap = importance_cap
        self.reference = copy.deepcopy(model).requires_grad_(False) if options.kl else None
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.masters = {
            name: p.detach().to(torch.float32, copy=True) for name, p in self.parameters.items()
        }
        self.optimizer = torch.optim.AdamW(
            self.masters.values(),
            lr=options.learning_rate,
            betas=options.betas,
            weight_decay=options.weight_decay,
            fused=True,
        )

    def step(self, rows: Sequence[Row], number: int) -> dict[str, float]:
        """Step ``number`` (from 1) on ``rows``; what is worth logging.

        Without rows, or where no row can move anything, the weights stay as they are. Raises
        ``DivergedError``, and changes nothing, where the gradient is not finite.
        """
        rate = learning_rate(self.options, number)
        denominator = total_weight(rows)
        live = [row for row in rows if row.num_trained and (self.options.kl or any(row.advantages))]
        if not live:
            return {"learning_rate": rate, "grad_norm": 0.0, "loss": 0.0}
        self._check_lengths(live)
        packs = pack_rows(
            live,
            # The mask keeps the rows of a pack apart in attention, and in nothing else.
            share_prompts=self.options.share_prompts and only_attends(self.model),
            max_tokens=self.options.micro_batch_tokens,
        )
        parts = batches(packs, self.options.micro_batch_tokens)
        tensors = [collate(part, self.model.device) for part in parts]
        # With one update the policy has not moved: the old log-probabilities are the current.
        old = [self._frozen(self.model, batch) for batch in tensors] if self._many else None
        reference = [self._frozen(self.reference, b) for b in tensors] if self.reference else None
        log, cap = _Log(denominator), self.importance_cap
        for update in range(self.options.updates_per_step):
            for master in self.masters.values():
                master.grad = torch.zeros_like(master)
            for i, batch in enumerate(tensors):
                scores = score_tokens(self.model, batch, temperature=self.temperature)
                before = old[i] if old else scores.logprobs.detach()
                part = token_loss(
                    scores.logprobs,
                    before,
                    batch.advantages,
                    reference[i] if reference else None,
                    importance=importance_weights(batch, before, cap) if cap else None,
                    clip=self.options.clip,
                    kl=self.options.kl,
                )
                loss = (batch.weights * part.loss).sum() / denominator
                loss.backward()
                self._collect_gradients()
                if update == 0:
                    log.tokens(batch, scores, part, loss.item())
                log.clipping(batch, part)
            norm = self._update(rate, number)
        return {"learning_rate": rate, "grad_norm": norm, **log.summary()}

    def _check_lengths(self, rows: Sequence[Row]) -> None:
        """Refuse what would be learned from with another attention than it was acted with.

        Rows are read under a mask of our own, which knows no sliding window: up to the window's
        length the two are the same.
        """
        window = getattr(self.model.config, "sliding_window", None)
        longest = max(len(row.ids) for row in rows)
        if window and getattr(self.model.config, "use_sliding_window", True) and longest > window:
            raise OVDError(
                f"a row of {longest} tokens: expected at most {window}, the model's sliding "
                "window; set rollout.max_context"
            )

    @property
    def _many(self) -> bool:
        return self.options.updates_per_step > 1

    @torch.no_grad()
    def _frozen(self, model: Any, batch: Batch) -> torch.Tensor:
        return score_tokens(model, batch, temperature=self.temperature).logprobs

    @torch.no_grad()
    def _collect_gradients(self) -> None:
        """Add a micro-batch's gradients to the masters', in float32."""
        for name, parameter in self.parameters.items():
            if parameter.grad is not None:
                gradient = self.masters[name].grad
                assert gradient is not None
                gradient += parameter.grad
                parameter.grad = None

    @torch.no_grad()
    def _update(self, rate: float, number: int) -> float:
        """Clip, step, and write the masters back; the gradient's norm before clipping."""
        norm = float(
            torch.nn.utils.clip_grad_norm_(self.masters.values(), self.options.max_grad_norm)
        )
        if not math.isfinite(norm):
            raise DivergedError(
                f"step {number}: the gradient's norm is {norm}, nothing was updated; expected a "
                "number (a smaller optimizer.learning_rate may help)"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.write_back()
        return norm

    @torch.no_grad()
    def write_back(self) -> None:
        """Copy the masters into the weights that act."""
        for name, parameter in self.parameters.items():
            parameter.copy_(self.masters[name])

    def state(self) -> dict[str, torch.Tensor]:
        """Masters and optimizer moments, by name: all that a resumed run needs."""
        state = {f"master/{name}": master for name, master in self.masters.items()}
        for name, master in self.masters.items():
            for key, value in self.optimizer.state.get(master, {}).items():
                state[f"{key}/{name}"] = value
        return state

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """The inverse of ``state``. Raises ``KeyError`` where a tensor is missing."""
        for name, master in self.masters.items():
            master.copy_(state[f"master/{name}"])
            moments = {
                key: state[f"{key}/{name}"].to(master.device, copy=True)
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"{key}/{name}" in state
            }
            if moments:
                self.optimizer.state[master] = moments
        self.write_back()


def learning_rate(options: OptimizerConfig, step: int) -> float:
    """The learning rate of step ``step`` (from 1): linear warmup, then the schedule."""
    if step <= options.warmup_steps:
        return options.learning_rate * step / (options.warmup_steps + 1)
    span = max(options.steps - options.warmup_steps, 1)
    done = min((step - 1 - options.warmup_steps) / span, 1.0)
    if options.schedule == "linear":
        return options.learning_rate * (1 - done)
    if options.schedule == "cosine":
        return options.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
    return options.learning_rate


class _Log:
    """Sums over the trained tokens of a step."""

    def __init__(self, denominator: float) -> None:
        self.denominator = denominator
        self.loss = self.count = self.kl = self.entropy = 0.0
        self.clipped = self.clippable = 0.0
        self.teacher = self.student = self.mismatch = 0.0
        self.has_kl = False

    def clipping(self, batch: Batch, part: Any) -> None:
        """Of every update: at the first one the ratios are 1 and nothing is clipped."""
        self.clipped += (batch.weights * part.clipped).sum().item()
        self.clippable += batch.weights.sum().item()

    def tokens(self, batch: Batch, scores: Any, part: Any, loss: float) -> None:
        weights = batch.weights
        self.loss += loss
        self.count += weights.sum().item()
        self.entropy += (weights * scores.entropy).sum().item()
        if part.kl is not None:
            self.has_kl = True
            self.kl += (weights * part.kl.detach()).sum().item()
        own = weights * ~batch.teacher
        self.student += own.sum().item()
        self.teacher += (weights * batch.teacher).sum().item()
        gap = (scores.logprobs.detach() - batch.sampler_logprobs).abs()
        self.mismatch += (own * gap).sum().item()

    def summary(self) -> dict[str, float]:
        summary = {
            "loss": self.loss,
            "entropy": self.entropy / self.count,
            "clip_fraction": self.clipped / self.clippable,
            "teacher_token_share": self.teacher / self.count,
            "sampler_mismatch": self.mismatch / self.student if self.student else 0.0,
        }
        return {**summary, "kl": self.kl / self.count} if self.has_kl else summary
