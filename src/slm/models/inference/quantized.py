"""Matrices with 8- and 4-bit weights, in blocks of 32 inputs that have a step of their own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from slm.models.kernels.library import serves
from slm.models.kernels.products import multiplies, product_quantized, product_tiles, rounded_rows, takes_tiles, widened

BLOCK = 32
_OUTPUTS = 8  # that lie together
_OUR_TOKENS = 16  # of a text at a time; with more, weights are widened and torch's products or tiles are faster
_SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8)  # of a block's range: clipping its ends can cost less than coarser steps
_LEAST_STEP = 6e-8  # fp16's least number
_AT_ONCE = 1 << 18  # weights for which a grid is sought, about what a cache holds
_ON_GRID = 1e-9  # of the squared range: such an error is that of rounding alone


class _QuantizedLinear(nn.Module):
    """On a CPU each input row is brought to 8 bits, in halves of blocks, by itself: no text depends on its neighbours.
    For a long text the weights are widened, and the same products are torch's."""

    codes: Tensor
    scales: Tensor  # fp16

    def __init__(self, source: nn.Linear) -> None:
        super().__init__()
        self.out_features, self.in_features = source.weight.shape
        self.bias = source.bias
        self._kept: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2:].numel() <= _OUR_TOKENS * self.in_features and multiplies(x, self.in_features, self.bias):
            return product_quantized(x, self.codes, self.scales, self.bias, self.out_features)
        weight = self.widened(x.dtype)
        if x.device.type == "cpu":
            x = rounded_rows(x) if serves(x) and not x.requires_grad else _rounded(x)
        if self.bias is None or self.bias.dtype == x.dtype:
            by_tiles = serves(x) and x.dtype == torch.bfloat16 and takes_tiles(weight)
            return (product_tiles if by_tiles else linear)(x, weight, self.bias)
        return linear(x, weight, self.bias.to(x.dtype))

    def widened(self, dtype: torch.dtype) -> Tensor:
        """The weights (out, in) themselves. Where there are no kernels to read the codes, they are made once."""
        if self._kept is not None and self._kept.dtype == dtype:
            return self._kept
        if serves(self.scales) and dtype in (torch.float32, torch.bfloat16):
            return widened(self.codes, self.scales, self.out_features, self.in_features, dtype)
        weight = self.rows(torch.arange(self.out_features, device=self.codes.device)).to(dtype)
        if weight.device.type == "cpu":
            self._kept = weight
        return weight

    def rows(self, ids: Tensor) -> Tensor:
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_kept": None}

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        scales = self.scales  # keep their dtype when a model is cast: the products count on it
        super()._apply(fn, recurse)
        if self.scales.dtype != scales.dtype:
            self.scales = scales.to(self.scales.device)
        self._kept = None
        return self

    def _load_from_state_dict(self, *arguments: Any, **named: Any) -> None:
        super()._load_from_state_dict(*arguments, **named)
        self._kept = None


class Int8Linear(_QuantizedLinear):
    """Codes (out / 8, blocks, 8, 8, 4) int8 and scales (out / 8, blocks, 8): eight outputs lie together, of each block
    their first four inputs, their next four, …; outputs and inputs are filled up with zeros. A weight is
    ``code * scale``, as in llama.cpp's Q8_0."""

    def __init__(self, source: nn.Linear) -> None:
        super().__init__(source)
        codes, scales = eight_bits(_filled_up(source.weight.detach().float()))
        self.register_buffer("codes", in_runs(codes))
        self.register_buffer("scales", scales.unflatten(0, (-1, _OUTPUTS)).transpose(1, 2).contiguous())

    def rows(self, ids: Tensor) -> Tensor:
        """(...) to (..., in), fp32: the weights of some outputs."""
        codes = self.codes[ids // _OUTPUTS, :, :, ids % _OUTPUTS].flatten(-2)
        scales = self.scales[ids // _OUTPUTS, :, ids % _OUTPUTS].float()
        return (codes * scales[..., None]).flatten(-2)[..., : self.in_features]


class Int4Linear(_QuantizedLinear):
    """Codes (out / 8, blocks, 4, 8, 4) uint8, the second half of a block in the upper halves of the bytes of the first;
    scales (out / 8, blocks, 2, 8): a weight is ``code * scale + least``, as in llama.cpp's Q4_1. The rest is as in
    `Int8Linear`."""

    def __init__(self, source: nn.Linear) -> None:
        super().__init__(source)
        codes, scales = four_bits(_filled_up(source.weight.detach().float()))
        halves = in_runs(codes).unflatten(2, (2, -1))
        self.register_buffer("codes", halves[:, :, 0] | halves[:, :, 1] << 4)
        self.register_buffer("scales", scales.unflatten(0, (-1, _OUTPUTS)).permute(0, 2, 3, 1).contiguous())

    def rows(self, ids: Tensor) -> Tensor:
        """(...) to (..., in), fp32: the weights of some outputs."""
        pairs = self.codes[ids // _OUTPUTS, :, :, ids % _OUTPUTS].flatten(-2)
        scale, least = self.scales[ids // _OUTPUTS, :, :, ids % _OUTPUTS].float()[..., None].unbind(-2)
        return (torch.cat([pairs & 15, pairs >> 4], dim=-1) * scale + least).flatten(-2)[..., : self.in_features]


def _rounded(x: Tensor) -> Tensor:
    """`rounded_rows` without kernels; gradients flow as if nothing were rounded."""
    halves = pad(x.detach().float(), (0, -x.shape[-1] % (BLOCK // 2))).unflatten(-1, (-1, BLOCK // 2))
    peak = halves.abs().amax(dim=-1, keepdim=True).clamp(min=1e-12)
    codes = (halves * (127 / peak) + 128.5).floor() - 128
    rounded = (codes * (peak / 127)).flatten(-2)[..., : x.shape[-1]].to(x.dtype)
    return x + (rounded - x.detach()) if x.requires_grad else rounded


def _filled_up(weight: Tensor) -> Tensor:
    """(N, K) to multiples of 8 and 32."""
    return pad(weight, (0, -weight.shape[1] % BLOCK, 0, -weight.shape[0] % _OUTPUTS))


def in_runs(codes: Tensor) -> Tensor:
    """(N, K) to (N / 8, blocks, 8, 8, 4)."""
    return codes.unflatten(0, (-1, _OUTPUTS)).unflatten(2, (-1, BLOCK // 4, 4)).permute(0, 2, 3, 1, 4).contiguous()


class Int8Embedding(nn.Module):
    """Rows of a `table` in 8 bits, a head's own where it is `shared`, in the dtype of the model."""

    like: Tensor

    def __init__(self, table: Int8Linear, dtype: torch.dtype, shared: bool) -> None:
        super().__init__()
        if shared:
            self.__dict__["table"] = table  # the head's to save, move and load
        else:
            self.table = table
        self.register_buffer("like", torch.empty(1, dtype=dtype, device=table.codes.device), persistent=False)
        self.init_weights()

    def init_weights(self) -> None:
        """The buffer that is not saved."""
        self.like.fill_(float("nan"))

    def forward(self, ids: Tensor) -> Tensor:
        table: Any = self.table
        found: Tensor = table.rows(ids)
        return found.to(self.like.dtype)

    @property
    def weight(self) -> Tensor:
        """Of the table's shape and the model's dtype and device, in no memory, and nan in every place."""
        table: Any = self.table
        return self.like.expand(table.out_features, table.in_features)


def eight_bits(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes (N, K) int8, -127 to 127, and scales (N, blocks) fp16 of `weight` (N, K), K in whole blocks."""
    blocks = weight.unflatten(1, (-1, BLOCK))
    scales = (blocks.abs().amax(dim=2) / 127).clamp(min=_LEAST_STEP).half()
    codes = (blocks / scales.float()[..., None]).round().clamp(-127, 127)
    return codes.flatten(1).to(torch.int8), scales


def four_bits(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes (N, K) uint8, 0 to 15, and (scale, least) (N, blocks, 2) fp16 of `weight` (N, K), K in whole blocks, with
    little squared error: several ranges are tried, each then moved to the least squares of its codes. What lies on such
    a grid already stays what it is."""
    blocks = weight.unflatten(1, (-1, BLOCK))
    codes = torch.zeros_like(blocks, dtype=torch.uint8)
    scales = torch.zeros((*blocks.shape[:2], 2), dtype=torch.float16, device=weight.device)
    if weight.is_meta:
        return codes.flatten(1), scales
    rows = max(1, _AT_ONCE // weight.shape[1])
    for part, own_codes, own_scales in zip(blocks.split(rows), codes.split(rows), scales.split(rows), strict=True):
        found = _grid_of(part)
        own_codes.copy_(found[0])
        own_scales.copy_(found[1])
    return codes.flatten(1), scales


def _grid_of(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and (scale, least) of some rows in blocks."""
    low, high = blocks.amin(dim=2, keepdim=True), blocks.amax(dim=2, keepdim=True)
    best = torch.full_like(low, float("inf"))
    codes, found = torch.zeros_like(blocks), torch.cat([torch.ones_like(low), low], dim=2)
    for shrink in _SHRINKS:
        step, least = (high - low) * shrink / 15, low + (high - low) * (1 - shrink) / 2
        for _ in range(2):
            step, least = (part.half().float() for part in (step.clamp(min=_LEAST_STEP), least))  # as stored
            tried = ((blocks - least) / step).round_().clamp_(0, 15)
            error = (tried * step).add_(least).sub_(blocks).square_().sum(dim=2, keepdim=True)
            better = error < best
            best = torch.where(better, error, best)
            codes = torch.where(better, tried, codes)
            found = torch.where(better, torch.cat([step, least], dim=2), found)
            step, least = _least_squares(blocks, tried)
        if bool((best <= _ON_GRID * (high - low).square()).all()):
            break
    return codes, found


def _least_squares(blocks: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """The step and least value that bring `codes` nearest to `blocks`."""
    mean, centre = blocks.mean(dim=2, keepdim=True), codes.mean(dim=2, keepdim=True)
    codes = codes - centre
    step = ((blocks - mean) * codes).sum(dim=2, keepdim=True) / codes.square().sum(dim=2, keepdim=True).clamp(min=1e-12)
    return step, mean - step * centre
