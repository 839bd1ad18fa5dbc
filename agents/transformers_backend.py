"""Runs a causal language model with transformers: exact tokens in, exact tokens out."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch.nn.functional import pad
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from agents.capabilities import TRANSFORMERS
from agents.completion import check_request, complete, reason_to_stop
from agents.dialects import make_dialect
from agents.grouped_attention import grouped
from agents.kv_cache import RoomyCache, RoomyLayer
from agents.models import ends_in, resolve_model
from agents.packed_linear import PackedLinears
from agents.protocol import Completion, Request
from agents.sampling import choose, uniforms
from ovd_envs.errors import OVDError


def choose_dtype(name: str = "auto", device: str = "cpu") -> torch.dtype:
    """The dtype called ``name``: "float32", "bfloat16", or "auto", bfloat16 where it is faster.

    On a CPU that is where it multiplies bfloat16 in hardware (AMX or AVX512-BF16).
    """
    if name == "auto":
        if device == "cpu":
            fast = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
        else:
            fast = torch.cuda.is_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    try:
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]
    except KeyError:
        raise OVDError(f"dtype {name!r}: expected auto, float32 or bfloat16") from None


def load_model(
    name: str, *, dtype: str = "auto", device: str | None = None
) -> tuple[Any, Any, str]:
    """(model in evaluation mode, tokenizer, where they came from).

    Only safetensors are read and no code of the model's repository is run. Raises ``OVDError``
    where there is no such model or it cannot be loaded.
    """
    # Large tensors in huge pages, where the system lets a program ask for them: fewer page faults
    # on a CPU. torch reads this at its first large tensor.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    place = resolve_model(name)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    chosen = choose_dtype(dtype, device)
    disable_progress_bar()  # of shards read and written: a library's noise in our display
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            place, dtype=chosen, use_safetensors=True, trust_remote_code=False
        )
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise OVDError(f"model {name!r}: cannot be loaded ({first})") from error
    return model.eval().to(device), tokenizer, place


def only_attends(model: Any) -> bool:
    """Whether the tokens of ``model`` meet in attention alone, where a mask says who reads whom.

    Not so with recurrent or convolving layers (Qwen3.5, LFM2, Granite 4 hybrid): there every token
    leaves its trace in all that stand after it.
    """
    kinds = getattr(model.config.get_text_config(), "layer_types", None) or ()
    return not model._is_stateful and not {"conv", "linear_attention"}.intersection(kinds)


#: A beginning of fewer tokens is cheaper to read with every prompt than by a pass of its own.
_WORTH_SHARING = 16
#: The most tokens of prompts that are read in one pass, if it is not a single prompt.
_AT_ONCE = 4096


@dataclass(slots=True)
class _Past:
    """Keys and values of the tokens ``ids``: one (2, heads, tokens, width) tensor a layer."""

    ids: list[int]
    layers: list[torch.Tensor]


def _shared_length(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences begin with in common."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def _unread(prompt: Sequence[int], past: _Past | None) -> int:
    """How many tokens of ``prompt`` must be read, where those of ``past`` are known."""
    return len(prompt) - (len(past.ids) if past else 0)


def _parts(
    prompts: Sequence[tuple[int, ...]], pasts: Sequence[_Past | None]
) -> Iterator[list[tuple[tuple[int, ...], _Past | None]]]:
    """The prompts in parts of ``_AT_ONCE`` tokens to read; those in a part are about as long.

    A part fits the processor's caches, and little of it is padding.
    """
    pairs = list(zip(prompts, pasts, strict=True))
    pairs.sort(key=lambda pair: (_unread(*pair), len(pair[0])))  # stable: the same, the same bits
    start = 0
    for end in range(1, len(pairs) + 1):
        if end == len(pairs) or (end + 1 - start) * _unread(*pairs[end]) > _AT_ONCE:
            yield pairs[start:end]
            start = end


@dataclass(slots=True)
class _Running:
    """A reply while it is sampled."""

    request: Request
    draws: Any
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    stop: str = ""


class TransformersBackend:
    """A causal language model in this process.

    Replies are sampled in left-padded batches of up to ``batch_size``. A prompt that several
    requests share is read once; a session's keys and values are kept for its next turn; a reply
    that has ended leaves the batch. Raises ``OVDError`` for a model that keeps more than keys and
    values of what it has read.
    """

    capabilities = TRANSFORMERS

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Any,
        *,
        name: str = "model",
        batch_size: int = 64,
        dialect: str = "chat",
    ) -> None:
        if not only_attends(model):
            raise OVDError(
                f"model {name!r}: has recurrent or convolving layers, of which the backend "
                "transformers keeps no state; expected the backend vllm or vllm-server"
            )
        self.model = model
        self.tokenizer = tokenizer
        self.name = name
        self.batch_size = batch_size
        self.dialect = make_dialect(dialect, tokenizer)
        self.dialect.stop_ids |= ends_in(model.generation_config)
        self.version = 0
        self._linears = PackedLinears(model)
        self._sessions: dict[str, _Past] = {}

    @classmethod
    def load(
        cls,
        name: str,
        *,
        dtype: str = "auto",
        device: str | None = None,
        batch_size: int = 64,
        dialect: str = "chat",
    ) -> TransformersBackend:
        """Load a model by alias, folder or hub name. Raises ``OVDError`` where that fails."""
        model, tokenizer, _ = load_model(name, dtype=dtype, device=device)
        return cls(model, tokenizer, name=name, batch_size=batch_size, dialect=dialect)

    @property
    def context_length(self) -> int:
        """The most tokens that an episode may have, prompt and replies together."""
        return int(getattr(self.model.config, "max_position_embeddings", 0) or 1 << 30)

    def release(self, sessions: Sequence[str]) -> None:
        """Forget the key-value caches of ``sessions``."""
        for session in sessions:
            self._sessions.pop(session, None)

    def follow(self, model: PreTrainedModel, version: int) -> None:
        """Sample from ``model`` from now on, or from what its weights have become.

        Every key-value cache is forgotten: they belong to weights that are gone.
        """
        if model is not self.model:
            self._linears = PackedLinears(model)
        self.model, self.version = model, version
        self._sessions.clear()

    @torch.inference_mode()
    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """One completion for each request, in order.

        Raises ``OVDError`` for an empty prompt, one that leaves no room for a reply, and options
        that mean nothing.
        """
        for request in requests:
            check_request(request, self.context_length, self.capabilities)
        completions: list[Completion] = []
        with grouped(self.model), self._linears.used():
            for start in range(0, len(requests), self.batch_size):
                completions += self._generate(requests[start : start + self.batch_size])
        return completions

    def _generate(self, requests: Sequence[Request]) -> list[Completion]:
        device = self.model.device
        running = [_Running(r, uniforms(r.key, r.max_tokens)) for r in requests]
        cache, mask, logits = self._prefill(requests)
        rows = list(range(len(requests)))  # which reply stands in which row of the batch
        while True:
            now = [running[row] for row in rows]
            temperature = torch.tensor([r.request.temperature for r in now], device=device)
            draws = np.stack([r.draws[len(r.ids)] for r in now])
            ids, logprobs = choose(logits.float(), temperature, torch.from_numpy(draws).to(device))
            for row, token, logprob in zip(rows, ids.tolist(), logprobs.tolist(), strict=True):
                self._append(running[row], token, logprob)
            ended = [i for i, row in enumerate(rows) if running[row].stop]
            self._keep_sessions(cache, mask, [(i, running[rows[i]]) for i in ended])
            if len(ended) == len(rows):
                return [
                    complete(self.dialect, r.request, r.ids, r.logprobs, version=self.version)
                    for r in running
                ]
            if ended:
                order = cache.keep_rows([i for i, row in enumerate(rows) if not running[row].stop])
                mask, ids = mask[order], ids[order]
                rows = [rows[i] for i in order]
            positions = mask.sum(dim=1, keepdim=True)
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            logits = self._forward(ids.unsqueeze(1), mask, positions, cache)

    def _forward(
        self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: RoomyCache
    ) -> torch.Tensor:
        """Logits (batch, vocabulary) of the token after the last of ``ids``; extends ``cache``."""
        output = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def _prefill(
        self, requests: Sequence[Request]
    ) -> tuple[RoomyCache, torch.Tensor, torch.Tensor]:
        """Read the prompts: cache, attention mask (batch, columns), logits (batch, vocabulary)."""
        prompts: dict[tuple[int, ...], int] = {}  # each different prompt is read once
        pasts: list[_Past | None] = []
        for request in requests:
            key = tuple(request.ids)
            if key not in prompts:
                prompts[key] = len(prompts)
                pasts.append(self._reusable(request))
        self._share_beginning(list(prompts), pasts)
        caches, masks, logits, order = [], [], [], []
        for part in _parts(list(prompts), pasts):
            cache, mask, after = self._read([key for key, _ in part], [past for _, past in part])
            caches.append(cache)
            masks.append(mask)
            logits.append(after)
            order += [prompts[key] for key, _ in part]
        cache = RoomyCache.join(caches, room=max(request.max_tokens for request in requests))
        width = max(mask.shape[1] for mask in masks)
        mask = torch.cat([pad(mask, (width - mask.shape[1], 0)) for mask in masks])
        place = {prompt: row for row, prompt in enumerate(order)}
        rows = [place[prompts[tuple(request.ids)]] for request in requests]
        if rows != list(range(len(order))):
            cache.batch_select_indices(torch.tensor(rows, device=mask.device))
        return cache, mask[rows], torch.cat(logits)[rows]

    def _read(
        self, prompts: Sequence[tuple[int, ...]], pasts: Sequence[_Past | None]
    ) -> tuple[RoomyCache, torch.Tensor, torch.Tensor]:
        """Read some prompts in one pass: what ``_prefill`` returns."""
        device = self.model.device
        # All rows read as many tokens as the one that must read most, or their whole prompt: so
        # a row's columns have no gap, and a sliding window sees what it should.
        width = max(_unread(key, past) for key, past in zip(prompts, pasts, strict=True))
        kept = [max(len(key) - width, 0) for key in prompts]
        fresh = [list(key[n:]) for key, n in zip(prompts, kept, strict=True)]
        past_width = max(kept)
        ids = torch.full((len(fresh), width), self._pad_id, device=device)
        mask = torch.zeros((len(fresh), past_width + width), dtype=torch.long, device=device)
        positions = torch.zeros((len(fresh), width), dtype=torch.long, device=device)
        for row, (new, old) in enumerate(zip(fresh, kept, strict=True)):
            ids[row, width - len(new) :] = torch.tensor(new, device=device)
            mask[row, past_width - old : past_width] = 1
            mask[row, past_width + width - len(new) :] = 1
            positions[row, width - len(new) :] = torch.arange(old, old + len(new), device=device)
        cache = self._stack(pasts, kept, past_width, width) if past_width else RoomyCache()
        return cache, mask, self._forward(ids, mask, positions, cache)

    def _share_beginning(
        self, prompts: Sequence[tuple[int, ...]], pasts: list[_Past | None]
    ) -> None:
        """Read once what all new prompts begin with: system message and instructions, mostly."""
        new = [i for i, past in enumerate(pasts) if past is None]
        if len(new) < 2:
            return
        ordered = sorted(prompts[i] for i in new)
        # What the first and the last in order have in common, all have.
        shared = list(ordered[0][: _shared_length(ordered[0][:-1], ordered[-1])])
        if len(shared) < _WORTH_SHARING:
            return
        ids = torch.tensor([shared], device=self.model.device)
        cache, mask = RoomyCache(), torch.ones_like(ids)
        self._forward(ids, mask, torch.arange(len(shared), device=ids.device)[None], cache)
        past = _Past(shared, [torch.cat([layer.keys, layer.values]) for layer in cache.layers])
        for i in new:
            pasts[i] = past

    @property
    def _pad_id(self) -> int:
        return self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else 0

    def _reusable(self, request: Request) -> _Past | None:
        """Kept keys and values of what the prompt begins with, its last token left out.

        They are kept anew when the reply has ended.
        """
        past = self._sessions.pop(request.session, None) if request.session else None
        if past is None:
            return None
        length = _shared_length(past.ids, request.ids[:-1])
        if not length:
            return None
        return _Past(past.ids[:length], [layer[:, :, :length] for layer in past.layers])

    def _stack(
        self, pasts: Sequence[_Past | None], kept: Sequence[int], width: int, room: int
    ) -> RoomyCache:
        """One left-padded cache of the first ``kept`` tokens of several conversations."""
        like = next(past for past in pasts if past)
        cache = RoomyCache()
        for number, layer in enumerate(like.layers):
            new = RoomyLayer()
            new.reserve(layer, len(pasts), written=width, room=room)
            for row, (past, count) in enumerate(zip(pasts, kept, strict=True)):
                if past and count:
                    new.keys[row, :, width - count :] = past.layers[number][0, :, :count]
                    new.values[row, :, width - count :] = past.layers[number][1, :, :count]
            cache.layers.append(new)
        return cache

    def _keep_sessions(
        self, cache: RoomyCache, mask: torch.Tensor, ended: list[tuple[int, _Running]]
    ) -> None:
        """Keep the keys and values of replies that have ended, for their next turn."""
        for row, reply in ended:
            if reply.request.session is None:
                continue
            columns = mask[row].nonzero().squeeze(1)
            layers = [
                torch.stack([layer.keys[row][:, columns], layer.values[row][:, columns]])
                for layer in cache.layers
            ]
            # The last sampled token has not been read by the model yet.
            ids = [*reply.request.ids, *reply.ids[:-1]]
            self._sessions[reply.request.session] = _Past(ids, layers)

    def _append(self, reply: _Running, token: int, logprob: float) -> None:
        if math.isnan(logprob):
            raise OVDError(f"model {self.name!r}: its logits are not numbers (NaN)")
        reply.ids.append(token)
        reply.logprobs.append(logprob)
        reply.stop = reason_to_stop(self.dialect, reply.request, reply.ids)

    @torch.inference_mode()
    def next_token_logprobs(
        self, prompts: Sequence[Sequence[int]], choices: Sequence[int]
    ) -> list[list[float]]:
        """Log-probabilities, at temperature 1, of each of ``choices`` as the next token.

        One list for each prompt, in the order of ``choices``. Raises ``OVDError`` for an empty
        prompt or one that is too long.
        """
        rows: list[list[float]] = []
        wanted = torch.tensor(list(choices), device=self.model.device)
        for start in range(0, len(prompts), self.batch_size):
            batch = [Request(ids, 1) for ids in prompts[start : start + self.batch_size]]
            for request in batch:
                check_request(request, self.context_length, self.capabilities)
            with grouped(self.model), self._linears.used():
                _, _, logits = self._prefill(batch)
            rows += logits.float().log_softmax(dim=-1)[:, wanted].tolist()
        return rows
