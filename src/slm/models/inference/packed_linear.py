"""Layers for inference, their numbers as they are, by the CPU's fastest operation."""

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from slm.models.kernels.activation import KINDS, activate
from slm.models.kernels.library import WIDTH, is_half, multiplies_bf16, serves
from slm.models.kernels.products import multiplies, product_few, product_tiles, takes_tiles

_OUR_ROWS = 32  # with more, a product without tiles is bound by arithmetic, and torch's are the best
_FASTER = ("gelu_tanh", "relu2")  # than torch's, of many numbers
_FEW_ROWS = range(4, 128)  # where oneDNN's fp32 product beats MKL's, by a tenth to a quarter


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
    half = weight.dtype == torch.bfloat16 and multiplies_bf16()
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
