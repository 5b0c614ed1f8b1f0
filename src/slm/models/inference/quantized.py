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

_DERIVED = ("totals", "packed")  # in a kernel's own order, which can be neither copied nor pickled
_OUR_ROWS = 16  # of int8: with more, oneDNN's product is faster
_SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8)  # of a group's range: clipping its ends can cost less than coarser steps


class _QuantizedLinear(nn.Module):
    """What both have: sizes, the bias, and what is derived from the codes at the first product."""

    codes: Tensor

    def __init__(self, source: nn.Linear) -> None:
        super().__init__()
        self.out_features, self.in_features = source.weight.shape
        self.bias = source.bias

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name not in _DERIVED}

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
        for derived in _DERIVED:
            self.__dict__.pop(derived, None)


class Int8Linear(_QuantizedLinear):
    """Weights as int8 with a scale for each output; each input row as 8 bits with a scale of its own.

    The products are exact integers (Dettmers et al. 2022, LLM.int8(), section 2, without outliers): a row's result
    does not depend on the rows beside it. On a GPU the weights are read as 8 bits and multiplied in the input's dtype.

    Args:
        source: the layer to replace.
    """

    scale: Tensor

    def __init__(self, source: nn.Linear) -> None:
        super().__init__(source)
        weight = source.weight.detach().float()
        self.register_buffer("scale", weight.abs().amax(dim=1).clamp(min=1e-12) / 127)
        self.register_buffer("codes", (weight / self.scale[:, None]).round().to(torch.int8))

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
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

    @functools.cached_property
    def packed(self) -> tuple[Tensor, Tensor, Tensor]:
        """Codes, in oneDNN's own order where it multiplies them, what an output's step is over 127, and its zero."""
        zeros = torch.zeros(self.out_features, dtype=torch.int32)
        codes = torch.ops.onednn.qlinear_prepack(self.codes, None) if _onednn_is_exact() else self.codes.float()
        return codes, self.scale / 127, zeros

    def _exact(self, rows: Tensor) -> Tensor:
        """Few operations on purpose: at one row, each costs as much as a tenth of the product."""
        packed, steps, zeros = self.packed
        peak = rows.abs().amax(dim=-1, keepdim=True).float().clamp_(min=1e-12)
        codes = (rows * (127 / peak)).add_(128.5).to(torch.uint8)  # cut, it is rounded: -127 .. 127 around 128
        if _onednn_is_exact():
            products = _onednn_product(codes, packed, steps, zeros)
        else:
            products = linear(codes.float().sub_(128), packed).mul_(steps)
        if self.bias is None:
            return products.mul_(peak).to(rows.dtype)
        return torch.addcmul(self.bias, products, peak).to(rows.dtype)


class Int4Linear(_QuantizedLinear):
    """Weights as 4 bits, each group of 64 inputs with a scale and an offset; products in bf16.

    Args:
        source: the layer to replace; its inputs must be a multiple of 64.
    """

    scales_and_offsets: Tensor

    def __init__(self, source: nn.Linear) -> None:
        super().__init__(source)
        codes, scale, offset = four_bits(source.weight.detach().float())
        self.register_buffer("codes", codes[:, ::2] | codes[:, 1::2] << 4)  # two a byte
        self.register_buffer("scales_and_offsets", torch.stack([scale, offset], dim=-1).to(torch.bfloat16))

    def forward(self, x: Tensor) -> Tensor:
        if has("int4") and serves(x, self.in_features, self.bias):
            if x.dim() < 3 or x.shape[-2] == 1:
                return product_int4(x, self.codes, self.scales_and_offsets, self.bias)
            return self._widened(x)
        rows = x.reshape(-1, self.in_features).to(torch.bfloat16)
        y = torch._weight_int4pack_mm_for_cpu(rows, self.packed, GROUP, self.scales_and_offsets)
        if self.bias is not None:
            y += self.bias
        return y.view(*x.shape[:-1], -1).to(x.dtype)

    @functools.cached_property
    def packed(self) -> Tensor:
        """Codes in the order of torch's kernel."""
        whole = torch.stack([self.codes & 15, self.codes >> 4], dim=-1).flatten(1).to(torch.int32)
        packed: Tensor = torch.ops.aten._convert_weight_to_int4pack_for_cpu(whole, 1)
        return packed

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


def _onednn_product(codes: Tensor, packed: Tensor, steps: Tensor, zeros: Tensor) -> Tensor:
    products: Tensor = torch.ops.onednn.qlinear_pointwise.default(
        codes, 1.0, 128, packed, steps, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return products


@functools.cache
def _onednn_is_exact() -> bool:
    """Whether oneDNN is there, and sums do not overflow: without VNNI it adds pairs of products in 16 bits."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.onednn, "qlinear_pointwise"):
        return False
    packed = torch.ops.onednn.qlinear_prepack(torch.full((16, 64), 127, dtype=torch.int8), None)
    codes = torch.full((1, 64), 255, dtype=torch.uint8)
    found = _onednn_product(codes, packed, torch.ones(16), torch.zeros(16, dtype=torch.int32))
    return bool((found == (255 - 128) * 127 * 64).all())
