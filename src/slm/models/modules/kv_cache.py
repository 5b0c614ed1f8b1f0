"""Keys and values of past positions, preallocated once per generation."""

from __future__ import annotations

import torch
from torch import Tensor


class KVCache:
    """Room for `max_len` positions of every layer; `length` of them are filled.

    A model's forward writes its new keys and values with `update` in each layer and then
    calls `advance` once.

    Attributes:
        length: positions filled so far; the next token stands at this position.
        keys, values: (n_layers, B, n_kv_heads, max_len, head_dim).
    """

    def __init__(
        self,
        n_layers: int,
        batch_size: int,
        n_kv_heads: int,
        max_len: int,
        head_dim: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        shape = (n_layers, batch_size, n_kv_heads, max_len, head_dim)
        self.keys = torch.empty(shape, device=device, dtype=dtype)
        self.values = torch.empty(shape, device=device, dtype=dtype)
        self.length = 0

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store the new positions of one layer and return all that are filled.

        Args:
            layer: which layer they belong to.
            keys, values: (B, n_kv_heads, T, head_dim) of positions ``length .. length + T - 1``.

        Returns:
            Views (B, n_kv_heads, length + T, head_dim) of keys and values.
        """
        end = self.length + keys.shape[2]
        self.keys[layer, :, :, self.length : end] = keys
        self.values[layer, :, :, self.length : end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def advance(self, n_tokens: int) -> None:
        """Count `n_tokens` more positions as filled, once all layers have stored them."""
        self.length += n_tokens
