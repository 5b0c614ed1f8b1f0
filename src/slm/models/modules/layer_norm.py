"""Norms over the last dimension."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import rms_norm

from slm.registry import register_norm


@register_norm("layer_norm")
class LayerNorm(nn.LayerNorm):
    """(x - mean) / sqrt(var + eps) * weight + bias (Ba et al. 2016)."""

    def __init__(self, dim: int, eps: float, bias: bool) -> None:
        super().__init__(dim, eps=eps, bias=bias)


@register_norm("rms_norm")
class RMSNorm(nn.RMSNorm):
    """x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich 2019, eq. 4); it has no bias."""

    def __init__(self, dim: int, eps: float, bias: bool) -> None:
        super().__init__(dim, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        # mixed precision hands halves to the norms of queries and keys, which with a gain in fp32 would go by slower
        # operations and come out twice as large
        return rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)
