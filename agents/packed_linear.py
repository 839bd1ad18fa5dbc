"""Linear layers whose weights lie as the processor's bfloat16 multiplication reads them.

PyTorch puts the weights of a linear layer into that order at every call, which for the few rows of
a decoding step is much of the work. Here they are packed once for each of their states.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.nn.functional import linear

#: With more rows than this, the order of the weights matters little, and so does this module.
_FEW_ROWS = 128
#: The packed weights are a copy: of a model with more bytes than this there is none.
_MOST_BYTES = 2 * 2**30


def _packs(weight: torch.Tensor) -> bool:
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.bfloat16
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


@dataclass(frozen=True, slots=True)
class _Packed:
    """The packed weights of one layer, and which state of its parameter they are."""

    weight: torch.Tensor
    state: tuple[int, int]


def _state(weight: torch.Tensor) -> tuple[int, int]:
    """What changes whenever the weights change: where they stand, how often they were written."""
    return weight.data_ptr(), weight._version


class PackedLinears:
    """The linear layers of ``model``, packed; packed again where their weights have changed."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._layers = [
            module
            for module in model.modules()
            if type(module) is torch.nn.Linear
            and "forward" not in vars(module)  # nobody else's hook
            and _packs(module.weight)
        ]
        if sum(layer.weight.nbytes for layer in self._layers) > _MOST_BYTES:
            self._layers = []
        self._packed: dict[torch.nn.Linear, _Packed] = {}

    @contextmanager
    def used(self) -> Iterator[None]:
        """Let the layers multiply so within the block, which must be in inference mode."""
        for layer in self._layers:
            state = _state(layer.weight)
            found = self._packed.get(layer)
            if found is None or found.state != state:
                weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), None)
                found = self._packed[layer] = _Packed(weight, state)
            layer.forward = partial(_forward, layer, found.weight)  # type: ignore[method-assign]
        try:
            yield
        finally:
            for layer in self._layers:
                del layer.forward


def _forward(layer: torch.nn.Linear, packed: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    if x.numel() > _FEW_ROWS * x.shape[-1]:
        return linear(x, layer.weight, layer.bias)
    result: Any = torch.ops.mkldnn._linear_pointwise(x, packed, layer.bias, "none", [], "")
    return result  # type: ignore[no-any-return]
