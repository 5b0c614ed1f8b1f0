"""Linear layers with 8- and 4-bit weights, for inference."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from slm.models.kernels.library import has
from slm.models.kernels.products import product_int4, product_int8, product_tiles, serves, takes_tiles, widened_int4

GROUP = 64
"""Inputs that share a scale of 4-bit weights: at 32 the scales are a fifth of what decoding reads."""

_OUR_ROWS = 16  # of int8: with more, oneDNN's product is faster
_SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8)  # of a group's range: clipping its ends can cost less than coarser steps


class _QuantizedLinear(nn.Module):
    """What both have: sizes, the bias, and codes in the kernel's own order, made at the first product."""

    codes: Tensor

    def __init__(self, source: nn.Linear) -> None:
        super().__init__()
        self.out_features, self.in_features = source.weight.shape
        self.bias = source.bias
        self._packed: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_packed": None}

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Scales keep their dtype when a model is cast: the products count on it."""
        buffers = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, before in buffers.items():
            now = self._buffers[name]
            if before is not None and now is not None and now.dtype != before.dtype:
                self._buffers[name] = before.to(now.device)
        self._forget()
        return self

    def _load_from_state_dict(self, *arguments: Any, **named: Any) -> None:
        super()._load_from_state_dict(*arguments, **named)
        self._forget()

    def _forget(self) -> None:
        """What was derived from the codes."""
        self._packed = None
        self.__dict__.pop("totals", None)


class Int8Linear(_QuantizedLinear):
    """Weights as int8 with a scale for each output; each input row as 8 bits with a scale of its own.

    The products are exact integers (Dettmers et al. 2022, LLM.int8(), section 2, without outliers): a row's result
    does not depend on the rows beside it. Where oneDNN's kernel is missing, the weights are read as 8 bits and
    multiplied in the input's dtype.

    Args:
        source: the layer to replace; of one on the meta device, the shape alone is taken.
    """

    scale: Tensor

    def __init__(self, source: nn.Linear) -> None:
        super().__init__(source)
        weight = source.weight.detach()
        if weight.is_meta:
            codes = torch.empty(weight.shape, dtype=torch.int8, device="meta")
            scale = torch.empty(self.out_features, device="meta")
        else:
            scale = weight.float().abs().amax(dim=1).clamp(min=1e-12) / 127
            codes = (weight.float() / scale[:, None]).round().to(torch.int8)
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or not _has_int8_kernel():
            y = linear(x, self.codes.to(x.dtype)) * self.scale.to(x.dtype)
            return y if self.bias is None else y + self.bias
        few = x.numel() <= _OUR_ROWS * self.in_features
        if few and has("int8") and serves(x, self.in_features, self.bias):
            return product_int8(x, self.codes, self.scale, self.totals, self.bias)
        return self._exact(x.reshape(-1, self.in_features)).view(*x.shape[:-1], -1)

    @functools.cached_property
    def totals(self) -> Tensor:
        """(out,) int32, the sums of the codes."""
        return self.codes.sum(dim=1, dtype=torch.int32)

    def _exact(self, rows: Tensor) -> Tensor:
        """Few operations on purpose: at one row, each costs as much as a tenth of the product."""
        if self._packed is None:
            self._packed = torch.ops.onednn.qlinear_prepack(self.codes, None)
            self._zeros = torch.zeros(self.out_features, dtype=torch.int32)
            self._steps = self.scale / 127
        peak = rows.abs().amax(dim=-1, keepdim=True).float().clamp_(min=1e-12)
        codes = (rows * (127 / peak)).add_(128.5).to(torch.uint8)  # cut, it is rounded: -127 .. 127 around 128
        products = torch.ops.onednn.qlinear_pointwise.default(
            codes, 1.0, 128, self._packed, self._steps, self._zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        if self.bias is None:
            return products.mul_(peak).to(rows.dtype)
        return torch.addcmul(self.bias, products, peak).to(rows.dtype)


class Int4Linear(_QuantizedLinear):
    """Weights as 4 bits, each group of 64 inputs with a scale and an offset; products in bf16.

    Args:
        source: the layer to replace; its inputs must be a multiple of 64. Of one on the meta device, the shape
            alone is taken.
    """

    scales_and_offsets: Tensor

    def __init__(self, source: nn.Linear) -> None:
        super().__init__(source)
        weight = source.weight.detach()
        if weight.is_meta:
            two_a_byte = torch.empty(self.out_features, self.in_features // 2, dtype=torch.uint8, device="meta")
            groups = (self.in_features // GROUP, self.out_features, 2)
            scales_and_offsets = torch.empty(groups, dtype=torch.bfloat16, device="meta")
        else:
            codes, scale, offset = four_bits(weight.float())
            two_a_byte = codes[:, ::2] | codes[:, 1::2] << 4
            scales_and_offsets = torch.stack([scale, offset], dim=-1).to(torch.bfloat16)
        self.register_buffer("codes", two_a_byte)
        self.register_buffer("scales_and_offsets", scales_and_offsets)

    def forward(self, x: Tensor) -> Tensor:
        if has("int4") and serves(x, self.in_features, self.bias):
            if x.dim() < 3 or x.shape[-2] == 1:
                return product_int4(x, self.codes, self.scales_and_offsets, self.bias)
            return self._widened(x)
        if self._packed is None:
            whole = torch.stack([self.codes & 15, self.codes >> 4], dim=-1).flatten(1).to(torch.int32)
            self._packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(whole, 1)
        rows = x.reshape(-1, self.in_features).to(torch.bfloat16)
        y = torch._weight_int4pack_mm_for_cpu(rows, self._packed, GROUP, self.scales_and_offsets)
        if self.bias is not None:
            y += self.bias
        return y.view(*x.shape[:-1], -1).to(x.dtype)

    def _widened(self, x: Tensor) -> Tensor:
        """By the weights in bf16: with the rows of a prompt, making them costs less than 4-bit products."""
        weight = widened_int4(self.codes, self.scales_and_offsets)
        multiply = product_tiles if takes_tiles(weight) else linear
        return multiply(x.bfloat16(), weight, None if self.bias is None else self.bias.bfloat16()).to(x.dtype)


def four_bits(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, scales and offsets that bring `weight` (N, K) back with little squared error.

    Returns:
        codes: (N, K) uint8, 0 to 15; weight is about ``(code - 8) * scale + offset``.
        scale, offset: (K / 64, N) fp32.
    """
    groups = weight.unflatten(1, (-1, GROUP))
    low, high = groups.amin(dim=2, keepdim=True), groups.amax(dim=2, keepdim=True)
    best = torch.full_like(low, float("inf"))
    codes, scale, offset = torch.zeros_like(groups), torch.ones_like(low), torch.zeros_like(low)
    for shrink in _SHRINKS:
        step = ((high - low) * shrink / 15).clamp(min=1e-12).bfloat16().float()  # as it will be stored
        middle = ((high + low) / 2 + step / 2).bfloat16().float()
        tried = ((groups - middle) / step + 8).round().clamp(0, 15)
        error = ((tried - 8) * step + middle - groups).square().sum(dim=2, keepdim=True)
        better = error < best
        best = torch.where(better, error, best)
        codes = torch.where(better, tried, codes)
        scale, offset = torch.where(better, step, scale), torch.where(better, middle, offset)
    return codes.flatten(1).to(torch.uint8), scale[..., 0].t().contiguous(), offset[..., 0].t().contiguous()


def _has_int8_kernel() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.onednn, "qlinear_pointwise")
