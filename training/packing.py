"""Rows of one group share their prompt: read it once.

A pack is the common prompt of some rows followed by what each goes on with. Every continuation
sees the prompt and itself, at the positions it would have alone, so the arithmetic is that of
separate rows and the work is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from training.rows import Row


@dataclass(frozen=True, slots=True)
class Pack:
    """Some rows with a common prefix of ``prefix`` tokens, none of which is trained."""

    rows: tuple[Row, ...]
    prefix: int

    @property
    def length(self) -> int:
        """Tokens that the model reads."""
        return self.prefix + sum(len(row.ids) - self.prefix for row in self.rows)


@dataclass(frozen=True, slots=True)
class Batch:
    """Tensors of some packs: (packs, tokens) unless another shape is given.

    ``mask`` is (packs, 1, tokens, tokens), true where a token sees another. The flat tensors of
    length (trained tokens) say, token by token: ``source``, the flat position of the hidden
    state that predicts it; ``targets``, its id; ``advantages``, ``weights`` and
    ``sampler_logprobs``; ``teacher``, whether a demonstrator wrote it.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    source: torch.Tensor
    targets: torch.Tensor
    advantages: torch.Tensor
    weights: torch.Tensor
    sampler_logprobs: torch.Tensor
    teacher: torch.Tensor


def pack_rows(
    rows: Sequence[Row], *, share_prompts: bool = True, max_tokens: int = 2048
) -> list[Pack]:
    """Rows as packs: rows of a group together as long as a pack stays under ``max_tokens``."""
    packs: list[Pack] = []
    members: dict[int, list[Row]] = {}
    for number, row in enumerate(rows):
        members.setdefault(row.group if share_prompts else number, []).append(row)
    for group in members.values():
        chosen: list[Row] = []
        for row in group:
            if chosen and _pack([*chosen, row]).length > max_tokens:
                packs.append(_pack(chosen))
                chosen = []
            chosen.append(row)
        packs.append(_pack(chosen))
    return packs


def _pack(rows: Sequence[Row]) -> Pack:
    """The rows with their longest common prefix that no row trains and none consists of."""
    limit = min(min(row.mask.index(1), len(row.ids) - 1) for row in rows)
    first, prefix = rows[0].ids, 0
    while prefix < limit and all(row.ids[prefix] == first[prefix] for row in rows):
        prefix += 1
    return Pack(tuple(rows), prefix)


def batches(packs: Iterable[Pack], max_tokens: int) -> list[list[Pack]]:
    """Packs by length, in batches of at most ``max_tokens`` tokens, padding included."""
    result: list[list[Pack]] = []
    for pack in sorted(packs, key=lambda pack: pack.length, reverse=True):
        # Sorted by length, the first of a batch is its longest: the width of the batch.
        if result and result[-1][0].length * (len(result[-1]) + 1) <= max_tokens:
            result[-1].append(pack)
        else:
            result.append([pack])
    return result


def collate(packs: Sequence[Pack], device: torch.device, pad_id: int = 0) -> Batch:
    """The tensors of some packs, padded on the right."""
    width = max(pack.length for pack in packs)
    ids = torch.full((len(packs), width), pad_id)
    positions = torch.zeros((len(packs), width), dtype=torch.long)
    # Which row of its pack a token belongs to: 0 the prompt, -1 padding.
    owner = torch.full((len(packs), width), -1)
    source: list[int] = []
    targets: list[int] = []
    numbers: list[tuple[float, float, float, bool]] = []
    for place, pack in enumerate(packs):
        prefix, end = pack.prefix, pack.prefix
        ids[place, :prefix] = torch.tensor(pack.rows[0].ids[:prefix], dtype=torch.long)
        positions[place, :prefix] = torch.arange(prefix)
        owner[place, :prefix] = 0
        for number, row in enumerate(pack.rows, start=1):
            start, end = end, end + len(row.ids) - prefix
            ids[place, start:end] = torch.tensor(row.ids[prefix:])
            positions[place, start:end] = torch.arange(prefix, len(row.ids))
            owner[place, start:end] = number
            for i in range(prefix, len(row.ids)):
                if row.mask[i]:
                    before = prefix - 1 if i == prefix else start + i - prefix - 1
                    source.append(place * width + before)
                    targets.append(row.ids[i])
                    numbers.append(
                        (row.advantages[i], row.weight, row.sampler_logprobs[i], row.by_teacher(i))
                    )
    causal = torch.ones((width, width), dtype=torch.bool).tril()
    same = (owner[:, :, None] == owner[:, None, :]) | (owner[:, None, :] == 0)
    # A padding token sees itself alone: a row of nothing but masked scores would be NaN.
    mask = (causal & same & (owner != -1)[:, None, :]) | torch.eye(width, dtype=torch.bool)
    advantages, weights, sampler_logprobs, teacher = zip(*numbers, strict=True)

    def numbers_of(values: Sequence[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=device)

    return Batch(
        ids=ids.to(device),
        positions=positions.to(device),
        mask=mask[:, None].to(device),
        source=torch.tensor(source, device=device),
        targets=torch.tensor(targets, device=device),
        advantages=numbers_of(advantages),
        weights=numbers_of(weights),
        sampler_logprobs=numbers_of(sampler_logprobs),
        teacher=torch.tensor(teacher, dtype=torch.bool, device=device),
    )
