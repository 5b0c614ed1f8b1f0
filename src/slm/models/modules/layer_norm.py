"""Norms over the last dimension."""

from __future__ import annotations

from torch import nn

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
