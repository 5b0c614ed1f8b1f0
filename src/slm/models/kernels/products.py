"""``y = x W^T + b`` by the C kernels, for inference: no gradient flows through. And the largest of each row."""

import torch
from torch import Tensor

from slm.models.kernels.library import compiled, has, is_half, place, serves


def product_few(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(..., in) to (..., out), few rows, all fp32 or all bf16; `weight` (out, in) contiguous."""
    return _product("product_few", x, weight.shape[0], (weight, bias), (is_half(x),))


def product_tiles(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(..., in) to (..., out), any number of rows, all bf16; `weight` (out, in) contiguous, one that `takes_tiles`."""
    return _product("product_tiles", x, weight.shape[0], (weight, bias))


def product_int8(x: Tensor, codes: Tensor, scale: Tensor, totals: Tensor, bias: Tensor | None) -> Tensor:
    """(..., in) to (..., out) in the dtype of `x` and `bias`, fp32 or bf16; rows are brought to 8 bits. A weight is its
    code (out, in), int8, times the scale (out,), fp32; totals (out,) int32 are the sums of the codes."""
    return _product("product_int8", x, codes.shape[0], (codes, scale, totals, bias), (is_half(x),))


def product_int4(x: Tensor, codes: Tensor, scales_and_offsets: Tensor, bias: Tensor | None) -> Tensor:
    """(..., in) to (..., out) in the dtype of `x` and `bias`, fp32 or bf16; rows are brought to 8 bits. A weight is
    ``(code - 8) * scale + offset``; codes are (out, in / 2) uint8, the even one of two in the lower half, `out` a
    multiple of 4, scales and offsets (in / 64, out, 2) bf16."""
    return _product("product_int4", x, codes.shape[0], (codes, scales_and_offsets, bias), (is_half(x),))


def widened_int4(codes: Tensor, scales_and_offsets: Tensor) -> Tensor:
    """The weights (out, in) in bf16; arguments as for `product_int4`."""
    out_features, half = codes.shape
    weight = torch.empty((out_features, 2 * half), dtype=torch.bfloat16)
    places = map(place, (codes, scales_and_offsets, weight))
    compiled().widen_int4(*places, out_features, 2 * half, torch.get_num_threads())
    return weight


def multiplies(x: Tensor, in_features: int, *others: Tensor | None) -> bool:
    """Whether the kernels can read `x` (..., in_features), and the others, which must have its dtype."""
    return (
        serves(x)
        and x.shape[-1] == in_features
        and x.numel() > 0
        and not x.requires_grad
        and all(other is None or (other.dtype == x.dtype and other.device == x.device) for other in others)
    )


def takes_tiles(weight: Tensor) -> bool:
    """Whether `product_tiles` takes a matrix of this shape (out, in), and the machine has it."""
    return weight.shape[0] >= 32 and weight.shape[1] % 32 == 0 and has("tiles")


def _product(
    name: str, x: Tensor, out_features: int, weights: tuple[Tensor | None, ...], kind: tuple[bool, ...] = ()
) -> Tensor:
    x = x.contiguous()
    y = x.new_empty((*x.shape[:-1], out_features))
    sizes = (x.numel() // x.shape[-1], out_features, x.shape[-1])
    if not getattr(compiled(), name)(*map(place, (*weights, x, y)), *kind, *sizes, torch.get_num_threads()):
        raise MemoryError(f"{name}: no memory for {x.numel()} numbers")
    return y


def largest_places(logits: Tensor) -> Tensor:
    """(B, V) to (B,) int64: where the largest of each row stands; of equals the first, as `torch.max` may not give."""
    if not serves(logits) or logits.stride(1) != 1:
        return logits.max(dim=-1).indices  # on a CPU two to four times as fast as argmax
    rows, n = logits.shape
    places = torch.empty(rows, dtype=torch.int64)
    sizes = (rows, n, logits.stride(0), torch.get_num_threads())
    compiled().largest_places(logits.data_ptr(), places.data_ptr(), is_half(logits), *sizes)
    return places
