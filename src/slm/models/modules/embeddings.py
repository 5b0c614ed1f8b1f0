"""Position embeddings that are added to the token embedding."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from slm.registry import register_position_embedding


@register_position_embedding("learned")
class LearnedPositions(nn.Module):
    """One trained vector a position (GPT-2)."""

    def __init__(self, max_seq_len: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(max_seq_len, dim))

    def init_weights(self) -> None:
        """GPT-2's N(0, 0.02)."""
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, x: Tensor, start: int) -> Tensor:
        """Add the vectors of positions ``start .. start + T - 1`` to `x` (B, T, C)."""
        return x + self.weight[start : start + x.shape[1]]


@register_position_embedding("sinusoidal")
class SinusoidalPositions(nn.Module):
    """Fixed sines and cosines (Vaswani et al. 2017, section 3.5)."""

    table: Tensor

    def __init__(self, max_seq_len: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("table", torch.empty(max_seq_len, dim), persistent=False)

    def init_weights(self) -> None:
        """Fill the table; it is never saved, since it is a function of its shape."""
        max_seq_len, dim = self.table.shape
        position = torch.arange(max_seq_len, dtype=torch.float32)[:, None]
        angle = position * torch.exp(torch.arange(0, dim, 2, dtype=torch.float32) * (-math.log(10000.0) / dim))
        table = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :dim]
        self.table.copy_(table)

    def forward(self, x: Tensor, start: int) -> Tensor:
        """Add the rows of positions ``start .. start + T - 1`` to `x` (B, T, C)."""
        return x + self.table[start : start + x.shape[1]].to(x.dtype)


@register_position_embedding("none")
class NoPositions(nn.Module):
    """Nothing is added; the causal mask alone tells positions apart."""

    def __init__(self, max_seq_len: int, dim: int) -> None:
        super().__init__()

    def init_weights(self) -> None:
        """There is nothing to fill."""

    def forward(self, x: Tensor, start: int) -> Tensor:
        """`x` itself."""
        return x
