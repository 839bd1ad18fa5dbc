"""The keys and values of a batch, with room for the tokens to come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

#: How many more tokens a full layer makes room for: seldom enough to move, not much unused.
_ROOM = 128


class RoomyLayer(DynamicLayer):  # type: ignore[misc]  # transformers brings no types
    """One layer: a token is written behind the others, where transformers' layer copies them all.

    ``keys`` and ``values`` are (batch, heads, tokens, width) views of what has been written.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._keys = self._values = torch.empty(0)
        self._rows = self._length = 0

    def reserve(self, like: torch.Tensor, rows: int, *, written: int, room: int) -> None:
        """Make ``written`` tokens of zeros in each of ``rows``, to be written by hand."""
        super().lazy_initialization(like, like)
        heads, width = like.shape[-3], like.shape[-1]
        self._keys = like.new_zeros((rows, heads, written + room, width))
        self._values = like.new_zeros((rows, heads, written + room, width))
        self._rows, self._length = rows, written
        self._show()

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write (batch, heads, new tokens, width) behind the others; all of them."""
        rows, _, count, _ = key_states.shape
        old, end = self._length, self._length + count
        if not self.is_initialized or end > self._keys.shape[2]:
            before = (self.keys, self.values) if self.is_initialized else None
            self.reserve(key_states, rows, written=old, room=count + _ROOM)
            if before is not None:
                self._keys[:, :, :old], self._values[:, :, :old] = before
        self._length = end
        self._show()
        self.keys[:, :, old:], self.values[:, :, old:] = key_states, value_states
        return self.keys, self.values

    def keep_rows(self, holes: torch.Tensor, movers: torch.Tensor, count: int) -> None:
        """Move the rows ``movers`` into ``holes`` and keep the first ``count``."""
        if len(holes):
            self._keys[holes, :, : self._length] = self.keys[movers]
            self._values[holes, :, : self._length] = self.values[movers]
        self._rows = count
        self._show()

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Make rows of copies of the rows ``indices``."""
        self._keys, self._values = self._keys[indices], self._values[indices]
        self._rows = len(indices)
        self._show()

    def _show(self) -> None:
        self.keys = self._keys[: self._rows, :, : self._length]
        self.values = self._values[: self._rows, :, : self._length]


class RoomyCache(Cache):  # type: ignore[misc]
    """A ``RoomyLayer`` for each layer of a model."""

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=RoomyLayer)

    @classmethod
    def join(cls, caches: Sequence[RoomyCache], *, room: int) -> RoomyCache:
        """The rows of all, one under the other, the last columns together, with room for more.

        ``caches`` are empty afterwards, so that the memory does not hold everything twice.
        """
        if len(caches) == 1:
            return caches[0]
        joined = cls()
        while caches[0].layers:
            parts = [cache.layers.pop(0) for cache in caches]
            columns = max(part.keys.shape[2] for part in parts)
            layer = RoomyLayer()
            rows = sum(len(part.keys) for part in parts)
            layer.reserve(parts[0].keys, rows, written=columns, room=room)
            row = 0
            for part in parts:
                count, _, width, _ = part.keys.shape
                layer.keys[row : row + count, :, columns - width :] = part.keys
                layer.values[row : row + count, :, columns - width :] = part.values
                row += count
            joined.layers.append(layer)
        return joined

    def keep_rows(self, alive: Sequence[int]) -> list[int]:
        """Keep the rows ``alive`` (ascending), and return in which order they now stand.

        The last ones move into the places that were left: a row that has ended costs a copy of
        one row, and not of the whole batch.
        """
        count = len(alive)
        here = set(alive)
        holes = [row for row in range(count) if row not in here]
        movers = [row for row in alive if row >= count]
        order = list(range(count))
        for hole, mover in zip(holes, movers, strict=True):
            order[hole] = mover
        for layer in self.layers:
            device = layer.keys.device
            layer.keep_rows(
                torch.tensor(holes, device=device), torch.tensor(movers, device=device), count
            )
        return order
