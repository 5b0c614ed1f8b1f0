"""The position-wise feed-forward layer."""

from __future__ import annotations

from torch import Tensor, nn

from slm.models.config import TransformerConfig
from slm.registry import ACTIVATIONS


class MLP(nn.Module):
    """down(activation(up(x))) (Vaswani et al. 2017, eq. 2)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.up_proj = nn.Linear(config.dim, config.mlp_dim, bias=config.bias)
        self.activation = ACTIVATIONS.get(config.activation)()
        self.down_proj = nn.Linear(config.mlp_dim, config.dim, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        return self.down_proj(self.activation(self.up_proj(x)))
