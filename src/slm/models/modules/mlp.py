"""The position-wise feed-forward layer, and its non-linearities."""

from __future__ import annotations

from torch import Tensor, nn

from slm.models.config import TransformerConfig
from slm.models.modules.fused import project_activated
from slm.registry import ACTIVATIONS, register_activation, register_mlp


@register_activation("gelu")
class GELU(nn.GELU):
    """Exact GELU, x * Phi(x) (Hendrycks and Gimpel 2016, eq. 1)."""


@register_activation("gelu_tanh")
class GELUTanh(nn.GELU):
    """The tanh approximation of GELU that GPT-2 uses (Hendrycks and Gimpel 2016, section 2)."""

    def __init__(self) -> None:
        super().__init__(approximate="tanh")


@register_activation("relu")
class ReLU(nn.ReLU):
    """max(x, 0)."""


@register_activation("relu2")
class ReLUSquared(nn.Module):
    """max(x, 0)^2 (So et al. 2021, Primer, section 4)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.relu().square()


@register_activation("silu")
class SiLU(nn.SiLU):
    """x * sigmoid(x), also known as swish (Elfwing et al. 2017)."""


@register_mlp("mlp")
class MLP(nn.Module):
    """down(activation(up(x))) (Vaswani et al. 2017, eq. 2), (B, T, C) to (B, T, C)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.up_proj = nn.Linear(config.dim, config.mlp_dim, bias=config.mlp_bias)
        self.activation = ACTIVATIONS.get(config.activation)()
        self.down_proj = nn.Linear(config.mlp_dim, config.dim, bias=config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        return project_activated(self.up_proj(x), None, self.activation, self.down_proj)


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
        return project_activated(self.gate_proj(x), self.up_proj(x), self.activation, self.down_proj)
