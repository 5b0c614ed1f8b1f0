"""Ways by which a token's identity reaches the blocks beside the residual stream."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class EmbeddingSkip(nn.Module):
    """``a x + b x0``, with x0 what the first block reads; it begins as x (modded-nanogpt, Jordan et al. 2024)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(2))

    def reset_parameters(self) -> None:
        """The stream alone."""
        with torch.no_grad():
            self.weight.copy_(torch.tensor([1.0, 0.0]))

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        """(B, T, C) twice to (B, T, C)."""
        stream, skip = self.weight.to(x.dtype)
        return stream * x + skip * embedded


class ValueEmbedding(nn.Module):
    """What a token adds to the values of each layer: a row of one table, times that layer's gate.

    Args:
        n_rows: tokens, padding included.
        n_layers: layers.
        heads, head_dim: of the values.
    """

    def __init__(self, n_rows: int, n_layers: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.table = nn.Embedding.from_pretrained(torch.empty(n_rows, heads * head_dim), freeze=False)  # draws nothing
        self.gates = nn.Parameter(torch.empty(n_layers))

    def reset_parameters(self) -> None:
        """Open gates; the table's rows are small and so begin to count by themselves."""
        nn.init.ones_(self.gates)

    def forward(self, input_ids: Tensor) -> list[Tensor]:
        """(B, T) ids to a (B, T, heads, head_dim) for each layer."""
        rows = self.table(input_ids).unflatten(-1, (self.heads, -1))
        return [rows * gate for gate in self.gates.to(rows.dtype)]
