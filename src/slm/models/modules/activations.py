"""Pointwise non-linearities of the MLP."""

from __future__ import annotations

from torch import Tensor, nn

from slm.registry import register_activation


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
        """Elementwise, any shape."""
        return x.relu().square()


@register_activation("silu")
class SiLU(nn.SiLU):
    """x * sigmoid(x), also known as swish (Elfwing et al. 2017)."""
