"""Matrices with 8- and 4-bit weights, in blocks of 32 inputs that have a step of their own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from slm.models.kernels.library import serves
from slm.models.kernels.products import multiplies, product_quantized, product_tiles, takes_tiles, widened

BLOCK = 32
_OUR_TOKENS = 16  # of a text at a time; with more, weights are widened and torch's products or tiles are faster
_SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8)  # of a block's range: clipping its ends can cost less than coarser steps
_LEAST_STEP = 1e-14


class _QuantizedLinear(nn.Module):
    """Each input row is brought to 8 bits in the same blocks, by itself: no text depends on its neighbours. Of a long
    text the weights are widened instead, and its numbers are multiplied as they are."""

    codes: Tensor
    scales: Tensor  # bf16

    def __init__(self, source: nn.Linear) -> None:
        super().__init__()
        self.out_features, self.in_features = source.weight.shape
        self.bias = source.bias
        self._kept: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2:].numel() <= _OUR_TOKENS * self.in_features and multiplies(x, self.in_features, self.bias):
            return product_quantized(x, self.codes, self.scales, self.bias)
        weight = self.widened(x.dtype)
        if self.bias is None or self.bias.dtype == x.dtype:
            by_tiles = serves(x) and x.dtype == torch.bfloat16 and takes_tiles(weight)
            return (product_tiles if by_tiles else linear)(x, weight, self.bias)
        return linear(x, weight, self.bias.to(x.dtype))

    def widened(self, dtype: torch.dtype) -> Tensor:
        """The weights (out, in) themselves. Where there are no kernels to read the codes, they are made once."""
        if self._kept is not None and self._kept.dtype == dtype:
            return self._kept
        if serves(self.scales) and dtype in (torch.float32, torch.bfloat16):
            return widened(self.codes, self.scales, self.in_features, dtype)
        weight = self._rows(self.codes, self.scales).to(dtype)
        if weight.device.type == "cpu":
            self._kept = weight
        return weight

    def _rows(self, codes: Tensor, scales: Tensor) -> Tensor:
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
    """Codes (out, in) int8, the last block of a row filled up with zeros; scales (out, blocks): a weight is
    ``code * scale``. The blocks, and activations in them, are llama.cpp's Q8_0."""

    def __init__(self, source: nn.Linear) -> None:
        super().__init__(source)
        codes, scales = eight_bits(source.weight.detach().float())
        self.register_buffer("codes", codes)
        self.register_buffer("scales", scales)

    def _rows(self, codes: Tensor, scales: Tensor) -> Tensor:
        """Of some rows (..., in), fp32."""
        return (codes.unflatten(-1, (-1, BLOCK)) * scales.float()[..., None]).flatten(-2)[..., : self.in_features]


class Int4Linear(_QuantizedLinear):
    """Codes (out, in / 2) uint8, two a byte, a block's first 16 in the lower halves; scales (out, blocks, 2): a weight
    is ``code * scale + least`` (llama.cpp's Q4_1). Blocks must divide the inputs."""

    def __init__(self, source: nn.Linear) -> None:
        super().__init__(source)
        codes, scales = four_bits(source.weight.detach().float())
        halves = codes.unflatten(1, (-1, 2, BLOCK // 2))
        self.register_buffer("codes", (halves[:, :, 0] | halves[:, :, 1] << 4).flatten(1))
        self.register_buffer("scales", scales)

    def _rows(self, codes: Tensor, scales: Tensor) -> Tensor:
        pairs = codes.unflatten(-1, (-1, BLOCK // 2))
        scale, least = scales.float()[..., None].unbind(-2)
        return (torch.cat([pairs & 15, pairs >> 4], dim=-1) * scale + least).flatten(-2)


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
        found: Tensor = table._rows(table.codes[ids], table.scales[ids])
        return found.to(self.like.dtype)

    @property
    def weight(self) -> Tensor:
        """Of the table's shape and the model's dtype and device, in no memory, and nan in every place."""
        table: Any = self.table
        return self.like.expand(table.out_features, table.in_features)


def eight_bits(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes (N, blocks * 32) int8, -127 to 127, and scales (N, blocks) bf16 of `weight` (N, K)."""
    blocks = pad(weight, (0, -weight.shape[1] % BLOCK)).unflatten(1, (-1, BLOCK))
    scales = (blocks.abs().amax(dim=2) / 127).clamp(min=_LEAST_STEP).bfloat16()
    codes = (blocks / scales.float()[..., None]).round().clamp(-127, 127)
    return codes.flatten(1).to(torch.int8), scales


def four_bits(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes (N, K) uint8, 0 to 15, and (scale, least) (N, blocks, 2) bf16 of `weight` (N, K), with little squared
    error: several ranges are tried, each then moved to the least squares of its codes."""
    blocks = weight.unflatten(1, (-1, BLOCK))
    low, high = blocks.amin(dim=2, keepdim=True), blocks.amax(dim=2, keepdim=True)
    best = torch.full_like(low, float("inf"))
    codes, found = torch.zeros_like(blocks), torch.cat([torch.ones_like(low), low], dim=2)
    for shrink in _SHRINKS:
        step, least = (high - low) * shrink / 15, low + (high - low) * (1 - shrink) / 2
        for _ in range(2):
            step, least = (part.bfloat16().float() for part in (step.clamp(min=_LEAST_STEP), least))  # as stored
            tried = ((blocks - least) / step).round().clamp(0, 15)
            error = (tried * step + least - blocks).square().sum(dim=2, keepdim=True)
            better = error < best
            best = torch.where(better, error, best)
            codes = torch.where(better, tried, codes)
            found = torch.where(better, torch.cat([step, least], dim=2), found)
            step, least = _least_squares(blocks, tried)
    return codes.flatten(1).to(torch.uint8), found.bfloat16()


def _least_squares(blocks: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """The step and least value that bring `codes` nearest to `blocks`."""
    mean, centre = blocks.mean(dim=2, keepdim=True), codes.mean(dim=2, keepdim=True)
    spread = (codes - centre).square().sum(dim=2, keepdim=True)
    step = ((blocks - mean) * (codes - centre)).sum(dim=2, keepdim=True) / spread.clamp(min=1e-12)
    return step, mean - step * centre
