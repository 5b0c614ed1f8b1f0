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


def product_quantized(x: Tensor, codes: Tensor, scales: Tensor, bias: Tensor | None, out_features: int) -> Tensor:
    """(..., in) to (..., out) in the dtype of `x` and `bias`, fp32 or bf16; rows are brought to 8 bits, in blocks of
    32. Codes and fp16 scales lie as in `Int8Linear` (codes int8) or `Int4Linear` (codes uint8)."""
    name = "product_int4" if codes.dtype == torch.uint8 else "product_int8"
    return _product(name, x, out_features, (codes, scales, bias), (is_half(x),))


def rounded_rows(x: Tensor) -> Tensor:
    """`x` (..., in) as `product_quantized` reads it, in its dtype, fp32 or bf16."""
    x = x.contiguous()
    y = torch.empty_like(x)
    rows = x.numel() // x.shape[-1]
    compiled().rounded_rows(place(x), place(y), is_half(x), rows, x.shape[-1], torch.get_num_threads())
    return y


def widened(codes: Tensor, scales: Tensor, out_features: int, in_features: int, dtype: torch.dtype) -> Tensor:
    """The weights (out, in), fp32 or bf16; codes and scales as for `product_quantized`."""
    weight = torch.empty((out_features, in_features), dtype=dtype)
    widen = compiled().widen_int4 if codes.dtype == torch.uint8 else compiled().widen_int8
    widen(*map(place, (codes, scales, weight)), is_half(weight), *weight.shape, torch.get_num_threads())
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
