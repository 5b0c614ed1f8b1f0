"""Layers for inference: linear ones as they are, by the CPU's fastest operation, and with 8- and 4-bit weights."""

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from slm.models.kernels.activation import KINDS, activate
from slm.models.kernels.library import WIDTH, has, is_half, serves
from slm.models.kernels.products import (
    multiplies,
    product_few,
    product_int4,
    product_int8,
    product_tiles,
    takes_tiles,
    widened_int4,
)

GROUP = 64  # inputs that share a scale of 4-bit weights: at 32 the scales are a fifth of what decoding reads
_OUR_ROWS = 32  # with more, a product without tiles is bound by arithmetic, and torch's are the best
_OUR_INT8_ROWS = 16  # with more, oneDNN's product is faster
_FASTER = ("gelu_tanh", "relu2")  # than torch's, of many numbers
_FEW_ROWS = range(4, 128)  # where oneDNN's fp32 product beats MKL's, by a tenth to a quarter
_DERIVED = ("totals", "packed")  # in a kernel's own order, which can be neither copied nor pickled
_SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8)  # of a group's range: clipping its ends can cost less than coarser steps


class PackedLinear(nn.Module):
    """The same numbers as the layer it replaces, and its `state_dict`; it cannot be trained or loaded into. Without the
    C kernels, bf16 weights are brought into the order that oneDNN's kernel reads, once. A `shared` weight is another
    module's too (a tied head's): it is neither reordered, which would copy it, nor part of the `state_dict`."""

    def __init__(self, source: nn.Linear, shared: bool = False) -> None:
        super().__init__()
        self.out_features, self.in_features = source.weight.shape
        self.bias = source.bias
        self.shared = shared
        self._weight = source.weight.detach()
        self._choose()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_weight": self.plain_weight}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._choose()

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad:  # somebody traces the model; oneDNN's operation has no derivative
            return linear(x, self.plain_weight, self.bias)
        n_rows = x.numel() // x.shape[-1]
        if self.native and multiplies(x, self.in_features, self._weight, self.bias):
            if self._tiles:
                return product_tiles(x, self._weight, self.bias)
            if n_rows <= _OUR_ROWS:
                return product_few(x, self._weight, self.bias)
        if n_rows == 1 and self.shared and self.bias is None and self._weight.dtype == torch.bfloat16:
            return torch.mv(self._weight, x.flatten()).view(*x.shape[:-1], -1)  # reads twice as fast as `linear`
        # MKL's fp32 product serves processors of others than Intel badly
        by_onednn = n_rows in _FEW_ROWS or (n_rows >= _FEW_ROWS.stop and not _is_intel())
        if self._reordered or (by_onednn and x.dtype == self._weight.dtype == torch.float32):
            return torch.ops.mkldnn._linear_pointwise.default(x, self._weight, self.bias, "none", [], "")
        return linear(x, self._weight, self.bias)

    @property
    def plain_weight(self) -> Tensor:
        """(out, in), as it lies in the layer that was replaced."""
        return self._weight.to_dense() if self._reordered else self._weight

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        self._weight = fn(self.plain_weight)
        self._choose()
        return self

    def _choose(self) -> None:
        weight, half = self._weight, is_half(self._weight)
        self.native = weight.is_contiguous() and serves(weight)
        self._tiles = self.native and half and takes_tiles(weight)
        self._reordered = half and not self.native and not self.shared
        if self._reordered:
            self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, None)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if not self.shared:
            destination[f"{prefix}weight"] = self.plain_weight


@functools.cache
def _is_intel() -> bool:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as info:
            return "GenuineIntel" in info.read(4096)
    except OSError:
        return True  # as torch's makers assume


def packs(weight: Tensor) -> bool:
    """Whether `PackedLinear` is faster for this weight: fp32, or bf16 that the CPU multiplies natively."""
    has_onednn = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    if weight.device.type != "cpu" or not has_onednn:
        return False
    half = weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return half or weight.dtype == torch.float32


class NativeActivation(nn.Module):
    """The same numbers as `source`, of the `kind` in activation.c; they may be written over what it is given."""

    def __init__(self, source: nn.Module, kind: int) -> None:
        super().__init__()
        self.source = source
        self.kind = kind
        self._is_faster = KINDS[kind] in _FASTER

    def forward(self, x: Tensor) -> Tensor:
        readable = not x.numel() % WIDTH and x.is_contiguous() and multiplies(x, x.shape[-1])
        if self._is_faster and readable:
            activate(self.kind, x, None, x)
            return x
        return self.source(x)


class _QuantizedLinear(nn.Module):
    codes: Tensor

    def __init__(self, source: nn.Linear) -> None:
        super().__init__()
        self.out_features, self.in_features = source.weight.shape
        self.bias = source.bias

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name not in _DERIVED}

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        buffers = dict(self._buffers)  # scales keep their dtype when a model is cast: the products count on it
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
    """Weights as int8 with a scale for each output; each input row as 8 bits with a scale of its own. The products are
    exact integers (Dettmers et al. 2022, LLM.int8(), section 2, without outliers): a row's result does not depend on
    the rows beside it. On a GPU the weights are read as 8 bits and multiplied in the input's dtype."""

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
        few = x.numel() <= _OUR_INT8_ROWS * self.in_features
        if few and has("int8") and multiplies(x, self.in_features, self.bias):
            return product_int8(x, self.codes, self.scale, self.totals, self.bias)
        return self._exact(x.reshape(-1, self.in_features)).view(*x.shape[:-1], -1)

    @functools.cached_property
    def totals(self) -> Tensor:
        """Sums of the codes, (out,) int32."""
        return self.codes.sum(dim=1, dtype=torch.int32)

    @functools.cached_property
    def packed(self) -> tuple[Tensor, Tensor, Tensor]:
        """Codes, in oneDNN's own order where it multiplies them, what an output's step is over 127, and its zero."""
        codes = torch.ops.onednn.qlinear_prepack(self.codes, None) if _onednn_is_exact() else self.codes.float()
        return codes, self.scale / 127, torch.zeros(self.out_features, dtype=torch.int32)

    def _exact(self, rows: Tensor) -> Tensor:
        # few operations on purpose: at one row, each costs as much as a tenth of the product
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
    """Weights as 4 bits, each group of 64 inputs, which must divide them, with a scale and an offset; in bf16."""

    scales_and_offsets: Tensor

    def __init__(self, source: nn.Linear) -> None:
        super().__init__(source)
        codes, scale, offset = four_bits(source.weight.detach().float())
        self.register_buffer("codes", codes[:, ::2] | codes[:, 1::2] << 4)  # two a byte
        self.register_buffer("scales_and_offsets", torch.stack([scale, offset], dim=-1).to(torch.bfloat16))

    def forward(self, x: Tensor) -> Tensor:
        if has("int4") and multiplies(x, self.in_features, self.bias):
            if x.dim() < 3 or x.shape[-2] == 1:
                return product_int4(x, self.codes, self.scales_and_offsets, self.bias)
            # with the rows of a prompt, weights in bf16 cost less to make than 4-bit products
            weight, bias = widened_int4(self.codes, self.scales_and_offsets), self.bias
            multiply = product_tiles if takes_tiles(weight) else linear
            return multiply(x.bfloat16(), weight, None if bias is None else bias.bfloat16()).to(x.dtype)
        rows = x.reshape(-1, self.in_features).to(torch.bfloat16)
        y = torch._weight_int4pack_mm_for_cpu(rows, self.packed, GROUP, self.scales_and_offsets)
        if self.bias is not None:
            y += self.bias
        return y.view(*x.shape[:-1], -1).to(x.dtype)

    @functools.cached_property
    def packed(self) -> Tensor:
        """Codes, in the order of torch's kernel."""
        whole = torch.stack([self.codes & 15, self.codes >> 4], dim=-1).flatten(1).to(torch.int32)
        return torch.ops.aten._convert_weight_to_int4pack_for_cpu(whole, 1)


def four_bits(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Codes (N, K) uint8, 0 to 15, scales and offsets (K / 64, N) fp32 that bring `weight` (N, K) back as
    ``(code - 8) * scale + offset``, with little squared error."""
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
    multiply = torch.ops.onednn.qlinear_pointwise.default
    return multiply(codes, 1.0, 128, packed, steps, zeros, None, 1.0, 0, torch.float32, "none", [], "")


@functools.cache
def _onednn_is_exact() -> bool:
    """Whether oneDNN is there, and sums do not overflow: without VNNI it adds pairs of products in 16 bits."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.onednn, "qlinear_pointwise"):
        return False
    packed = torch.ops.onednn.qlinear_prepack(torch.full((16, 64), 127, dtype=torch.int8), None)
    codes = torch.full((1, 64), 255, dtype=torch.uint8)
    found = _onednn_product(codes, packed, torch.ones(16), torch.zeros(16, dtype=torch.int32))
    return bool((found == (255 - 128) * 127 * 64).all())
