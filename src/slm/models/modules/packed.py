"""Linear layers that choose the CPU's fastest product for what they are given, for inference."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

_FEW_ROWS = range(4, 128)  # where oneDNN's fp32 product beats MKL's, by a tenth to a quarter


class PackedLinear(nn.Module):
    """The same numbers as the layer it replaces.

    bf16 weights are brought into the order that the kernel reads, once instead of in every product. fp32 weights stay
    as they are.

    Args:
        source: the layer to replace; bf16 weights of it are let go.
    """

    def __init__(self, source: nn.Linear) -> None:
        super().__init__()
        self.bias = source.bias
        self.weight = source.weight.detach()
        self.packed = self.weight.dtype == torch.bfloat16
        if self.packed:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight, None)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "weight": self.weight.to_dense() if self.packed else self.weight}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if self.packed:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight, None)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        if self.packed or x.numel() // x.shape[-1] in _FEW_ROWS:
            product: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, self.weight, self.bias, "none", [], "")
            return product
        return linear(x, self.weight, self.bias)


def packs(weight: Tensor) -> bool:
    """Whether `PackedLinear` is faster for this weight: fp32, or bf16 that the CPU multiplies natively."""
    return (
        weight.device.type == "cpu"
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and (
            weight.dtype == torch.float32
            or (weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())
        )
    )
