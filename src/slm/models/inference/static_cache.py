"""A cache's memory as a decoding step of fixed shapes sees it: where its rows stand is a tensor, no Python number."""

from __future__ import annotations

import torch
from torch import Tensor

from slm.models.inference.kv_cache import KVCache, Positions


class StaticCache:
    """All rows of a `KVCache`, each extended by one position at a time; answers what a model's forward asks.

    Nothing that it says depends on the step but through `lengths`, so the operations of one step can be recorded and
    run again. What the mask hides must hold numbers: nan times 0 is nan.

    Args:
        cache: whose memory this is; all of it must hold numbers.
        end: one more than the last position that a row may come to stand at (the size of rotary tables).

    Attributes:
        lengths: (rows,) int64, positions filled; a row that is full stays at its last position.
    """

    def __init__(self, cache: KVCache, end: int) -> None:
        self._keys, self._values = cache.keys, cache.values
        self._end = end
        device = cache.keys.device
        self.lengths = torch.zeros(cache.keys.shape[1], dtype=torch.int64, device=device)
        self._rows = torch.arange(cache.keys.shape[1], device=device)
        self._places = torch.arange(cache.max_len, device=device)

    def positions(self, n_tokens: int) -> Positions:
        """Where the next tokens stand: (rows, 1)."""
        assert n_tokens == 1
        return self.lengths[:, None]

    def end(self, n_tokens: int) -> int:
        """The same in every step."""
        return self._end

    def mask(self, n_tokens: int, window: int | None) -> Tensor:
        """What the next tokens see: (rows, 1, 1, max_len) bool."""
        last = self.lengths[:, None]
        seen = self._places <= last
        if window is not None:
            seen = seen & (self._places > last - window)
        return seen[:, None, None, :]

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store (rows, n_kv_heads, 1, head_dim) of one layer; all keys and values of it, filled or not."""
        all_keys, all_values = self._keys[layer], self._values[layer]
        all_keys[self._rows, :, self.lengths] = keys[:, :, 0]
        all_values[self._rows, :, self.lengths] = values[:, :, 0]
        return all_keys, all_values

    def advance(self, n_tokens: int) -> None:
        """Count the new positions, in place."""
        self.lengths.add_(n_tokens).clamp_(max=len(self._places) - 1)
