"""Linear layers whose bf16 weights lie in the order that the CPU's kernel reads, for inference."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PackedLinear(nn.Module):
    """The same numbers as the layer it replaces, reordered once instead of in every product.

    Args:
        source: the layer to replace; its weights are let go.
    """

    def __init__(self, source: nn.Linear) -> None:
        super().__init__()
        self.bias = source.bias
        self._weight = torch.ops.mkldnn._reorder_linear_weight(source.weight.detach(), None)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self.bias, "none", [], "")
        return product


def packs(weight: Tensor) -> bool:
    """Whether reordering makes products with this weight faster: bf16 on a CPU that multiplies it natively."""
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.bfloat16
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
