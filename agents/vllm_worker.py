"""What vLLM's workers learn from us (``worker_extension_cls``): to take the trainer's weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class FollowingWorker:
    """Methods that vLLM adds to its own worker; the engine calls them by name."""

    model_runner: Any

    def take_weights(
        self,
        path: str | None = None,
        weights: Iterable[tuple[str, torch.Tensor]] | None = None,
    ) -> None:
        """Put the weights of a checkpoint folder, or of an iterator, in the place of the old."""
        self.model_runner.reload_weights(weights_iterator=weights, weights_path=path)
        # An output layer that shares the embedding's weights is not loaded by itself, and on a CPU
        # it works on a packed copy of them, which would stay the old one (vLLM 0.32).
        for module in self.model_runner.get_model().modules():
            if type(module).__name__ == "ParallelLMHead":
                module.quant_method.process_weights_after_loading(module)


#: How vLLM is told of it.
WORKER = f"{FollowingWorker.__module__}.{FollowingWorker.__qualname__}"
