"""Rotary positions (Su et al. 2021, RoFormer): queries and keys turn with the place they stand at."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from slm.models.compute_dtype import compute_dtype
from slm.models.config import ModelConfig, RotaryConfig, RotaryScaling
from slm.models.contract import Positions
from slm.models.modules.embeddings import PositionEmbedding, Rotation
from slm.registry import register_position_embedding


@register_position_embedding("rotary")
class RotaryPositions(PositionEmbedding):
    """Adds nothing to the stream and has no weights; attention turns queries and keys by `rotation`.

    The table of angles is made when it is first needed and grows with the sequences seen, so that a model that
    could take 131,072 tokens does not pay for them. It is no buffer: casting the model leaves it exact.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.rotary = config.modules.position_embedding.rotary
        self.rotary_dim = config.modules.rotary_dim
        self.max_seq_len = config.params.max_seq_len
        self._tables: dict[tuple[torch.device, torch.dtype], Rotation] = {}

    def rotation(self, x: Tensor, positions: Positions, end: int) -> Rotation:
        device, dtype = x.device, compute_dtype(x)
        table = self._tables.get((device, dtype))
        if table is None or len(table[0]) < end:
            # twice the need, so that a text that grows a token at a time makes few tables, one that slides too
            length = min(2 * end, self.max_seq_len) if end <= self.max_seq_len else 2 * end
            table = self._table(length, device, dtype)
            self._tables[(device, dtype)] = table
        cos, sin = table[0][positions], table[1][positions]
        return (cos, sin) if isinstance(positions, slice) else (cos[:, None], sin[:, None])

    @torch.no_grad()
    @torch.inference_mode(False)  # training goes on with the table that generation made
    def _table(self, length: int, device: torch.device, dtype: torch.dtype) -> Rotation:
        frequency, factor = frequencies(self.rotary, self.rotary_dim)
        angle = torch.outer(torch.arange(length, dtype=torch.float32), frequency)
        return (angle.cos() * factor).to(device, dtype), (angle.sin() * factor).to(device, dtype)


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn the first ``rotary_dim`` numbers of each head of `x` (B, H, T, head_dim); the rest stay.

    Number i is paired with i + rotary_dim / 2 (GPT-NeoX's order, that of published weights), and each pair turns
    by its angle: Su et al. 2021, eq. 34 up to the order of the dimensions.
    """
    cos, sin = rotation
    half = cos.shape[-1]
    first, second, rest = x.split([half, half, x.shape[-1] - 2 * half], dim=-1)
    turned = [first * cos - second * sin, second * cos + first * sin]
    return torch.cat([*turned, rest] if rest.shape[-1] else turned, dim=-1)


def frequencies(config: RotaryConfig, dim: int) -> tuple[Tensor, float]:
    """Radians a position for each of the `dim` / 2 pairs, fp32, and the factor of cosines and sines.

    In single precision on purpose: published models were trained with these very roundings, which show at
    positions beyond 10,000.
    """
    exponent = torch.arange(0, dim, 2, dtype=torch.float32, device="cpu") / dim
    frequency = 1.0 / (config.base**exponent)
    scaling = config.scaling
    if scaling is None:
        return frequency, 1.0
    if scaling.kind == "linear":
        return frequency / scaling.factor, 1.0
    if scaling.kind == "llama3":
        return _llama3(frequency, scaling), 1.0
    return _yarn(frequency, scaling, config.base, dim)


def _llama3(frequency: Tensor, scaling: RotaryScaling) -> Tensor:
    """Long waves scaled whole, short ones not, those between in proportion (Dubey et al. 2024, Llama 3.1's code)."""
    assert scaling.original_max_seq_len is not None
    turns = scaling.original_max_seq_len / (2 * math.pi / frequency)
    kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    kept = kept.clamp(0, 1)
    return (1 - kept) * frequency / scaling.factor + kept * frequency


def _yarn(frequency: Tensor, scaling: RotaryScaling, base: float, dim: int) -> tuple[Tensor, float]:
    """NTK-by-parts with a temperature on attention (Peng et al. 2023, YaRN, definitions 1 and 2, eq. 22)."""
    assert scaling.original_max_seq_len is not None
    original = scaling.original_max_seq_len

    def pair_that_turns(times: float) -> float:
        return dim * math.log(original / (times * 2 * math.pi)) / (2 * math.log(base))

    low = max(math.floor(pair_that_turns(scaling.beta_fast)), 0)
    high = min(math.ceil(pair_that_turns(scaling.beta_slow)), dim - 1)
    pair = torch.arange(dim // 2, dtype=torch.float32, device="cpu")
    scaled = ((pair - low) / max(high - low, 0.001)).clamp(0, 1)
    factor = scaling.attention_factor
    if factor is None:
        factor = 0.1 * math.log(scaling.factor) + 1.0 if scaling.factor > 1 else 1.0
    return frequency / scaling.factor * scaled + frequency * (1 - scaled), factor
