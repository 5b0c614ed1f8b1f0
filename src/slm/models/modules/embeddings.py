"""What a token's place, and its identity once more, add to what layers read; and what every kind of position offers."""

import math

import torch
from torch import Tensor, nn

from slm.models.config import ModelConfig, RotaryConfig, RotaryScaling
from slm.models.contract import Positions, compute_dtype
from slm.registry import register_position_embedding

Rotation = tuple[Tensor, Tensor]


@register_position_embedding("none")
class PositionEmbedding(nn.Module):
    """How a model knows where a token stands. A kind overrides what it needs; this one does nothing, and the causal
    mask alone tells positions apart."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()

    def init_weights(self) -> None:
        """Fresh weights, and buffers that follow from the config."""

    def forward(self, x: Tensor, positions: Positions) -> Tensor:
        """Token embeddings `x` (B, T, C) with their positions added."""
        return x

    def rotation(self, x: Tensor, positions: Positions, end: int) -> Rotation | None:
        """Cosines and sines by which attention turns queries and keys of positions below `end`; None for no turning.
        Each is (T, rotary_dim / 2) or (B, 1, T, rotary_dim / 2), in the dtype that attention computes in."""
        return None


@register_position_embedding("learned")
class LearnedPositions(PositionEmbedding):
    """One trained vector a position (GPT-2)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.weight = nn.Parameter(torch.empty(config.params.max_seq_len, config.modules.transformer.dim))

    def init_weights(self) -> None:
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, x: Tensor, positions: Positions) -> Tensor:
        return x + self.weight[positions]


@register_position_embedding("sinusoidal")
class SinusoidalPositions(PositionEmbedding):
    """Fixed sines and cosines (Vaswani et al. 2017, section 3.5)."""

    table: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        shape = (config.params.max_seq_len, config.modules.transformer.dim)
        self.register_buffer("table", torch.empty(shape), persistent=False)  # a function of its shape

    def init_weights(self) -> None:
        max_seq_len, dim = self.table.shape
        position = torch.arange(max_seq_len, dtype=torch.float32)[:, None]
        angle = position * torch.exp(torch.arange(0, dim, 2, dtype=torch.float32) * (-math.log(10000.0) / dim))
        self.table.copy_(torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :dim])

    def forward(self, x: Tensor, positions: Positions) -> Tensor:
        return x + self.table[positions].to(x.dtype)


@register_position_embedding("rotary")
class RotaryPositions(PositionEmbedding):
    """Adds nothing to the stream and has no weights; attention turns queries and keys (Su et al. 2021, RoFormer). The
    table of angles grows with the sequences seen, so that a model that could take 131,072 tokens does not pay for them.
    It is no buffer: casting the model leaves it exact."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.rotary = config.modules.position_embedding.rotary
        self.rotary_dim = config.modules.rotary_dim
        self.max_seq_len = config.params.max_seq_len
        self._tables: dict[tuple[torch.device, torch.dtype], Rotation] = {}
        self._reach = 0  # of the tables: where frequencies are a function of it

    def rotation(self, x: Tensor, positions: Positions, end: int) -> Rotation:
        device, dtype = x.device, compute_dtype(x)
        if (reach := reach_of(self.rotary.scaling, end)) != self._reach:
            self._tables, self._reach = {}, reach
        table = self._tables.get((device, dtype))
        if table is None or len(table[0]) < end:
            # twice the need, so that a text that grows a token at a time makes few tables, one that slides too
            length = min(2 * end, self.max_seq_len) if end <= self.max_seq_len else 2 * end
            table = self._tables[(device, dtype)] = self._table(length, device, dtype)
        cos, sin = table[0][positions], table[1][positions]
        return (cos, sin) if isinstance(positions, slice) else (cos[:, None], sin[:, None])

    @torch.no_grad()
    @torch.inference_mode(False)  # training goes on with the table that generation made
    def _table(self, length: int, device: torch.device, dtype: torch.dtype) -> Rotation:
        frequency, factor = frequencies(self.rotary, self.rotary_dim, self._reach)
        angle = torch.outer(torch.arange(length, dtype=torch.float32), frequency)
        return (angle.cos() * factor).to(device, dtype), (angle.sin() * factor).to(device, dtype)


class ValueEmbedding(nn.Module):
    """What a token adds to values, (B, T) ids to (B, T, heads, head_dim) a layer: one table's row times its gate."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        shape = config.modules.transformer
        self.heads = shape.n_kv_heads
        rows = torch.empty(config.padded_vocab_size, shape.n_kv_heads * shape.head_dim)
        self.table = nn.Embedding.from_pretrained(rows, freeze=False)  # draws nothing
        self.gates = nn.Parameter(torch.empty(shape.n_layers))

    def reset_parameters(self) -> None:
        nn.init.ones_(self.gates)  # open: the table's rows are small and so begin to count by themselves

    def forward(self, input_ids: Tensor) -> list[Tensor]:
        rows = self.table(input_ids).unflatten(-1, (self.heads, -1))
        return [rows * gate for gate in self.gates.to(rows.dtype)]


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn the first ``rotary_dim`` numbers of each head of `x` (B, H, T, head_dim); the rest stay. Su et al. 2021, eq.
    34, but pairs are i and i + rotary_dim / 2 (GPT-NeoX's order of the dimensions, that of published weights)."""
    cos, sin = rotation
    half = cos.shape[-1]
    first, second, rest = x.split([half, half, x.shape[-1] - 2 * half], dim=-1)
    turned = [first * cos - second * sin, second * cos + first * sin]
    return torch.cat([*turned, rest] if rest.shape[-1] else turned, dim=-1)


def reach_of(scaling: RotaryScaling | None, end: int) -> int:
    """The length that the frequencies of a text of `end` tokens are made for; 0 where they are the same for all. Keys
    in a cache stay as they were turned, as in transformers."""
    if scaling is None or scaling.kind not in ("dynamic", "longrope"):
        return 0
    assert scaling.original_max_seq_len is not None
    if scaling.kind == "dynamic":
        return max(end, scaling.original_max_seq_len)
    return scaling.original_max_seq_len + (end > scaling.original_max_seq_len)


def frequencies(config: RotaryConfig, dim: int, reach: int = 0) -> tuple[Tensor, float]:
    """Radians a position for each of the `dim` / 2 pairs, fp32, and the factor of cosines and sines, for a text that
    `reach_of` says this of. In single precision: published models were trained with these roundings, which show at
    positions beyond 10,000."""
    scaling, base = config.scaling, config.base
    if scaling is not None and scaling.kind == "dynamic" and scaling.original_max_seq_len is not None:
        stretched = scaling.factor * max(reach / scaling.original_max_seq_len, 1.0) - (scaling.factor - 1)
        base *= stretched ** (dim / (dim - 2))
    exponent = torch.arange(0, dim, 2, dtype=torch.float32, device="cpu") / dim
    frequency = 1.0 / (base**exponent)
    if scaling is None or scaling.kind == "dynamic":
        return frequency, 1.0
    if scaling.kind == "linear":
        return frequency / scaling.factor, 1.0
    assert scaling.original_max_seq_len is not None
    if scaling.kind == "yarn":
        return _yarn(frequency, scaling, scaling.original_max_seq_len, config.base, dim)
    if scaling.kind == "longrope":
        return _longrope(frequency, scaling, scaling.original_max_seq_len, reach)
    # long waves scaled whole, short ones not, those between in proportion (Dubey et al. 2024, Llama 3.1's code)
    turns = scaling.original_max_seq_len / (2 * math.pi / frequency)
    kept = ((turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)).clamp(0, 1)
    return (1 - kept) * frequency / scaling.factor + kept * frequency, 1.0


def _longrope(frequency: Tensor, scaling: RotaryScaling, original: int, reach: int) -> tuple[Tensor, float]:
    """A divisor of its own for each frequency, found by search (Ding et al. 2024, LongRoPE; Phi-3's code)."""
    divisors = torch.tensor(scaling.long_factors if reach > original else scaling.short_factors, dtype=torch.float32)
    factor = scaling.attention_factor
    if factor is None:
        factor = math.sqrt(1 + math.log(scaling.factor) / math.log(original)) if scaling.factor > 1 else 1.0
    return frequency / divisors.to(frequency.device), factor


def _yarn(frequency: Tensor, scaling: RotaryScaling, original: int, base: float, dim: int) -> tuple[Tensor, float]:
    """NTK-by-parts with a temperature on attention (Peng et al. 2023, YaRN, definitions 1 and 2, eq. 22)."""

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
