"""What a token's place, and its identity once more, add to what layers read; and what every kind of position offers."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from slm.models.config import ModelConfig
from slm.models.contract import Positions
from slm.registry import register_position_embedding

Rotation = tuple[Tensor, Tensor]


class PositionEmbedding(nn.Module):
    """How a model knows where a token stands. A kind overrides what it needs; this one does nothing."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()

    def init_weights(self) -> None:
        """Fresh weights, and buffers that follow from the config."""

    def forward(self, x: Tensor, positions: Positions) -> Tensor:
        """Token embeddings `x` (B, T, C) with their positions added."""
        return x

    def rotation(self, x: Tensor, positions: Positions, end: int) -> Rotation | None:
        """Cosines and sines by which attention turns queries and keys of these positions; None for no turning.

        Each is (T, rotary_dim / 2) or (B, 1, T, rotary_dim / 2), in the dtype that attention computes in.

        Args:
            x, positions: as `forward` takes them.
            end: one more than the last position.
        """
        return None


@register_position_embedding("none")
class NoPositions(PositionEmbedding):
    """Nothing is added; the causal mask alone tells positions apart."""


@register_position_embedding("learned")
class LearnedPositions(PositionEmbedding):
    """One trained vector a position (GPT-2)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.weight = nn.Parameter(torch.empty(config.params.max_seq_len, config.modules.transformer.dim))

    def init_weights(self) -> None:
        """GPT-2's N(0, 0.02)."""
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, x: Tensor, positions: Positions) -> Tensor:
        return x + self.weight[positions]


@register_position_embedding("sinusoidal")
class SinusoidalPositions(PositionEmbedding):
    """Fixed sines and cosines (Vaswani et al. 2017, section 3.5)."""

    table: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        shape = (config.params.max_seq_len, config.modules.transformer.dim)
        self.register_buffer("table", torch.empty(shape), persistent=False)

    def init_weights(self) -> None:
        """Fill the table; it is never saved, since it is a function of its shape."""
        max_seq_len, dim = self.table.shape
        position = torch.arange(max_seq_len, dtype=torch.float32)[:, None]
        angle = position * torch.exp(torch.arange(0, dim, 2, dtype=torch.float32) * (-math.log(10000.0) / dim))
        self.table.copy_(torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :dim])

    def forward(self, x: Tensor, positions: Positions) -> Tensor:
        return x + self.table[positions].to(x.dtype)


class ValueEmbedding(nn.Module):
    """What a token adds to the values of each layer: a row of one table, times that layer's gate."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        shape = config.modules.transformer
        self.heads = shape.n_kv_heads
        rows = torch.empty(config.padded_vocab_size, shape.n_kv_heads * shape.head_dim)
        self.table = nn.Embedding.from_pretrained(rows, freeze=False)  # draws nothing
        self.gates = nn.Parameter(torch.empty(shape.n_layers))

    def reset_parameters(self) -> None:
        """Open gates; the table's rows are small and so begin to count by themselves."""
        nn.init.ones_(self.gates)

    def forward(self, input_ids: Tensor) -> list[Tensor]:
        """(B, T) ids to a (B, T, heads, head_dim) for each layer."""
        rows = self.table(input_ids).unflatten(-1, (self.heads, -1))
        return [rows * gate for gate in self.gates.to(rows.dtype)]
