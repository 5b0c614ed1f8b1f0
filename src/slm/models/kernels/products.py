"""``y = x W^T + b`` by the C kernels, for inference: no gradient flows through."""

from __future__ import annotations

import torch
from torch import Tensor

from slm.models.kernels.library import has, library


def product_few(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(..., in) to (..., out), few rows, all fp32 or all bf16; `weight` (out, in) contiguous."""
    return _product("product_few", x, weight.shape[0], (weight.data_ptr(), _place(bias)), (_half(x),))


def product_tiles(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(..., in) to (..., out), any number of rows, all bf16; `weight` (out, in) contiguous, one that `takes_tiles`."""
    return _product("product_tiles", x, weight.shape[0], (weight.data_ptr(), _place(bias)))


def product_int8(x: Tensor, codes: Tensor, scale: Tensor, totals: Tensor, bias: Tensor | None) -> Tensor:
    """(..., in) to (..., out) in the dtype of `x` and `bias`, fp32 or bf16.

    Args:
        x: rows are brought to 8 bits, each with a step of its own.
        codes: (out, in) int8.
        scale: (out,) fp32: a weight is its code times this.
        totals: (out,) int32, the sums of the codes.
        bias: (out,).
    """
    places = (codes.data_ptr(), scale.data_ptr(), totals.data_ptr(), _place(bias))
    return _product("product_int8", x, codes.shape[0], places, (_half(x),))


def product_int4(x: Tensor, codes: Tensor, scales_and_offsets: Tensor, bias: Tensor | None) -> Tensor:
    """(..., in) to (..., out) in the dtype of `x` and `bias`, fp32 or bf16.

    Args:
        x: rows are brought to 8 bits, each with a step of its own.
        codes: (out, in / 2) uint8, the even one of two weights in the lower half; `out` a multiple of 4.
        scales_and_offsets: (in / 64, out, 2) bf16: a weight is ``(code - 8) * scale + offset``.
        bias: (out,).
    """
    places = (codes.data_ptr(), scales_and_offsets.data_ptr(), _place(bias))
    return _product("product_int4", x, codes.shape[0], places, (_half(x),))


def widened_int4(codes: Tensor, scales_and_offsets: Tensor) -> Tensor:
    """The weights (out, in) in bf16; arguments as for `product_int4`."""
    out_features, half = codes.shape
    weight = torch.empty((out_features, 2 * half), dtype=torch.bfloat16)
    found = library()
    assert found is not None
    places = (codes.data_ptr(), scales_and_offsets.data_ptr(), weight.data_ptr())
    found.widen_int4(*places, out_features, 2 * half, torch.get_num_threads())
    return weight


def serves(x: Tensor, in_features: int, *others: Tensor | None) -> bool:
    """Whether the kernels can read `x` (..., in_features), and the others, which must have its dtype."""
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and x.shape[-1] == in_features
        and x.numel() > 0
        and not x.requires_grad
        and all(other is None or (other.dtype == x.dtype and other.device == x.device) for other in others)
    )


def takes_tiles(weight: Tensor) -> bool:
    """Whether `product_tiles` takes a matrix of this shape (out, in), and the machine has it."""
    return weight.shape[0] >= 32 and weight.shape[1] % 32 == 0 and has("tiles")


def _product(
    name: str, x: Tensor, out_features: int, weights: tuple[int | None, ...], kind: tuple[bool, ...] = ()
) -> Tensor:
    x = x.contiguous()
    y = x.new_empty((*x.shape[:-1], out_features))
    sizes = (x.numel() // x.shape[-1], out_features, x.shape[-1])
    if not getattr(library(), name)(*weights, x.data_ptr(), y.data_ptr(), *kind, *sizes, torch.get_num_threads()):
        raise MemoryError(f"{name}: no memory for {x.numel()} numbers")
    return y


def _half(x: Tensor) -> bool:
    return x.dtype == torch.bfloat16


def _place(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
