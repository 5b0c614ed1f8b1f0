"""The position-wise feed-forward layer."""

from __future__ import annotations

from torch import Tensor, nn

from slm.models.config import TransformerConfig
from slm.models.kernels.train_activation import activate_and_project, serves_activation
from slm.registry import ACTIVATIONS, register_mlp


@register_mlp("mlp")
class MLP(nn.Module):
    """down(activation(up(x))) (Vaswani et al. 2017, eq. 2)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.up_proj = nn.Linear(config.dim, config.mlp_dim, bias=config.mlp_bias)
        self.activation = ACTIVATIONS.get(config.activation)()
        self.down_proj = nn.Linear(config.mlp_dim, config.dim, bias=config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        return _down(self.up_proj(x), None, self.activation, self.down_proj)


@register_mlp("glu")
class GatedMLP(nn.Module):
    """down(activation(gate(x)) * up(x)) (Shazeer 2020, eq. 6): SwiGLU with silu, GeGLU with gelu."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.dim, config.mlp_dim, bias=config.mlp_bias)
        self.up_proj = nn.Linear(config.dim, config.mlp_dim, bias=config.mlp_bias)
        self.activation = ACTIVATIONS.get(config.activation)()
        self.down_proj = nn.Linear(config.mlp_dim, config.dim, bias=config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        return _down(self.gate_proj(x), self.up_proj(x), self.activation, self.down_proj)


def _down(x: Tensor, up: Tensor | None, activation: nn.Module, projection: nn.Linear) -> Tensor:
    if serves_activation(x, activation, projection):
        return activate_and_project(x, up, activation, projection)
    read = activation(x)
    y: Tensor = projection(read if up is None else read * up)
    return y
