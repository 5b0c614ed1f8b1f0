"""The shape of a model, as frozen dataclasses with the key names of `conf/model/*.yaml`. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Annotated, Any, Literal

from annotated_types import Le
from pydantic import AfterValidator, WrapValidator

from slm.registry import ACTIVATIONS, ATTENTIONS, LOSSES, MLPS, MODELS, NORMS, POSITION_EMBEDDINGS, Registry
from slm.schema import FORBID_EXTRA, Count, Flag, Int, NonNegativeInt, PositiveFloat, Probability, Text, checked, dotted


def _name_in(registry: Registry) -> AfterValidator:
    return AfterValidator(registry.check)


# A setting that null leaves to the others; `__post_init__` makes a value of it.
_OR_DERIVED = WrapValidator(lambda value, check: None if value is None else check(value))
DerivedCount = Annotated[Count, _OR_DERIVED]
DerivedFlag = Annotated[Flag, _OR_DERIVED]
DERIVED: Any = None


class _Strict:
    __pydantic_config__ = FORBID_EXTRA


@dataclass(frozen=True)
class Params(_Strict):
    """Sizes shared by several modules."""

    max_seq_len: Count  # the longest sequence the model can take, in tokens
    dropout: Probability = 0.0  # default of every dropout in the model
    vocab_size: Count | None = None  # number of real tokens; None until the tokenizer is known
    vocab_multiple: Count = 64  # rows of embedding and head are padded up to a multiple of this, never learnt


@dataclass(frozen=True)
class TokenEmbeddingConfig(_Strict):
    """Token embedding; with `values` a second table, whose rows are added to the values that attention mixes, in each
    layer times a gate of its own (Jordan et al. 2024, modded-nanogpt's value embeddings, here one for all layers)."""

    values: Flag = False
    freeze: Flag = False


@dataclass(frozen=True)
class RotaryScaling(_Strict):
    """How rotary frequencies are lowered to reach `factor` times further than a model was trained for: ``linear``
    (position interpolation, Chen et al. 2023), ``llama3`` (Dubey et al. 2024), ``yarn`` (Peng et al. 2023), ``dynamic``
    (a base that grows with the text, Peng et al. 2023, section 3.3) or ``longrope`` (Ding et al. 2024)."""

    kind: Literal["linear", "llama3", "yarn", "dynamic", "longrope"]
    factor: PositiveFloat
    original_max_seq_len: Count | None = None  # the length it was trained for; all but linear need it
    # dimensions that turn fewer times within that length than `low` are scaled whole, more often than `high` not at all
    low_freq_factor: PositiveFloat = 1.0
    high_freq_factor: PositiveFloat = 4.0
    beta_fast: PositiveFloat = 32.0  # yarn's `high`
    beta_slow: PositiveFloat = 1.0  # its `low`
    # of cosines and sines; None for yarn's ``0.1 ln(factor) + 1``, longrope's ``sqrt(1 + ln(factor) / ln(original))``
    attention_factor: PositiveFloat | None = None
    short_factors: tuple[PositiveFloat, ...] | None = None  # longrope's divisors of each frequency, within that length
    long_factors: tuple[PositiveFloat, ...] | None = None  # and beyond it

    def __post_init__(self) -> None:
        if self.kind != "linear" and self.original_max_seq_len is None:
            raise ValueError(f"scaling of kind {self.kind} needs original_max_seq_len, the length trained for")
        if self.kind == "llama3" and self.high_freq_factor <= self.low_freq_factor:
            raise ValueError("high_freq_factor must be above low_freq_factor")
        own = {
            "linear": (),
            "llama3": ("original_max_seq_len", "low_freq_factor", "high_freq_factor"),
            "yarn": ("original_max_seq_len", "beta_fast", "beta_slow", "attention_factor"),
            "dynamic": ("original_max_seq_len",),
            "longrope": ("original_max_seq_len", "attention_factor", "short_factors", "long_factors"),
        }[self.kind]
        if self.kind == "longrope" and not (self.short_factors and self.long_factors):
            raise ValueError("scaling of kind longrope needs short_factors and long_factors, one for each frequency")
        for setting in fields(self)[2:]:
            if setting.name not in own and getattr(self, setting.name) != setting.default:
                raise ValueError(f"{setting.name} is no setting of kind {self.kind}; leave it out")


@dataclass(frozen=True)
class RotaryConfig(_Strict):
    """Rotary positions (Su et al. 2021), for ``position_embedding.kind=rotary``."""

    base: PositiveFloat = 10000.0  # wavelengths go up to 2 pi times this
    fraction: Annotated[PositiveFloat, Le(1)] = 1.0  # of each head's width turns; the rest carries no position
    scaling: RotaryScaling | None = None


@dataclass(frozen=True)
class PositionEmbeddingConfig(_Strict):
    """How positions enter: ``learned`` (GPT-2), ``sinusoidal``, ``rotary`` (Llama) or ``none``."""

    kind: Annotated[Text, _name_in(POSITION_EMBEDDINGS)] = "learned"
    rotary: RotaryConfig = field(default_factory=RotaryConfig)
    freeze: Flag = False


@dataclass(frozen=True)
class EmbeddingDropoutConfig(_Strict):
    """Dropout on the sum of token and position embedding."""

    p: Probability = 0.0


@dataclass(frozen=True)
class TransformerConfig(_Strict):
    """The stack of blocks."""

    dim: Count  # width C of the residual stream
    n_layers: Count
    n_heads: Count
    n_kv_heads: DerivedCount = DERIVED  # each shared by several queries' (Ainslie et al. 2023); null: n_heads
    head_dim: DerivedCount = DERIVED  # null: dim / n_heads
    dropout: Probability = 0.0
    attention: Annotated[Text, _name_in(ATTENTIONS)] = "mha"
    qkv_bias: Flag = True
    out_proj_bias: DerivedFlag = DERIVED  # null: bias
    qk_norm: Flag = False  # a norm over each head of the queries and keys (Henry et al. 2020)
    sliding_window: Count | None = None  # a position sees itself and this less one before it; null: all before it
    full_layers: tuple[NonNegativeInt, ...] = ()  # numbers, from 0, of layers that see all before them all the same
    mlp: Annotated[Text, _name_in(MLPS)] = "mlp"  # two matrices; glu: gated, SwiGLU with silu, GeGLU with gelu
    mlp_mult: PositiveFloat = 4  # the MLP's hidden width in `dim`
    mlp_dim: DerivedCount = DERIVED  # or, which comes first, as a number
    activation: Annotated[Text, _name_in(ACTIVATIONS)] = "relu2"
    mlp_bias: DerivedFlag = DERIVED  # null: bias
    bias: Flag = True  # in the norms, and wherever a switch of its own is null
    prenorm: Flag = True  # norm before each sublayer and once at the end (GPT-2); False: after each (GPT-1)
    parallel_residual: Flag = False  # attention and MLP read the same input (GPT-J, Pythia)
    norm: Annotated[Text, _name_in(NORMS)] = "layer_norm"
    norm_eps: PositiveFloat = 1e-5
    # blocks read a learned mix of the stream and what it began with, at first the stream alone (modded-nanogpt)
    embedding_skip: Flag = False
    zero_init: Flag = False  # what writes into the stream begins at 0, every block as the identity (Zhang et al. 2019)
    freeze: Flag = False

    def __post_init__(self) -> None:
        if self.head_dim is None and self.dim % self.n_heads:
            raise ValueError(f"dim ({self.dim}) must be a multiple of n_heads ({self.n_heads}), or head_dim be set")
        width = self.mlp_mult * self.dim
        if self.mlp_dim is None and not 0.5 < width < 2**63:
            raise ValueError(f"mlp_mult ({self.mlp_mult}) times dim ({self.dim}) must be at least 1, and below 2^63")
        derived = {
            "n_kv_heads": self.n_heads,
            "head_dim": self.dim // self.n_heads,
            "out_proj_bias": self.bias,
            "mlp_dim": self.mlp_dim or round(width),
            "mlp_bias": self.bias,
        }
        for name, value in derived.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        object.__setattr__(self, "mlp_mult", self.mlp_dim / self.dim)
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"n_heads ({self.n_heads}) must be a multiple of n_kv_heads ({self.n_kv_heads})")
        if self.full_layers and (self.sliding_window is None or max(self.full_layers) >= self.n_layers):
            raise ValueError(f"full_layers are numbers below n_layers ({self.n_layers}), where sliding_window is set")
        if self.parallel_residual and not self.prenorm:
            raise ValueError("parallel_residual needs prenorm: there is no post-norm form of it")

    def window_of(self, layer: int) -> int | None:
        """The sliding window of the attention in this layer; None if it sees everything."""
        return None if layer in self.full_layers else self.sliding_window


@dataclass(frozen=True)
class OutputProjectionConfig(_Strict):
    """The head; tied, it is the token embedding's own weight. `softcap` as in Gemma 2: ``c * tanh(logits / c)``."""

    tie_weights: Flag = True
    softcap: PositiveFloat | None = None
    freeze: Flag = False


@dataclass(frozen=True)
class LossConfig(_Strict):
    """The training loss. `ignore_index` is not learnt, as are no negative labels, which mark places with none."""

    kind: Annotated[Text, _name_in(LOSSES)] = "cross_entropy"
    ignore_index: Int = -100


@dataclass(frozen=True)
class Modules(_Strict):
    """The pluggable parts, in the order data passes them."""

    transformer: TransformerConfig
    token_embedding: TokenEmbeddingConfig = field(default_factory=TokenEmbeddingConfig)
    position_embedding: PositionEmbeddingConfig = field(default_factory=PositionEmbeddingConfig)
    emb_dropout: EmbeddingDropoutConfig = field(default_factory=EmbeddingDropoutConfig)
    output_projection: OutputProjectionConfig = field(default_factory=OutputProjectionConfig)
    loss: LossConfig = field(default_factory=LossConfig)

    def __post_init__(self) -> None:
        if self.output_projection.tie_weights and self.output_projection.freeze != self.token_embedding.freeze:
            differ = "output_projection.freeze and token_embedding.freeze differ, but tie_weights makes them one tensor"
            raise ValueError(f"{differ}; set both alike, or tie_weights=false")
        position = self.position_embedding
        if position.kind != "rotary" and position.rotary != RotaryConfig():
            raise ValueError(f"position_embedding.rotary is read only where kind=rotary; kind is {position.kind}")
        if position.kind == "rotary" and self.rotary_dim % 2:
            raise ValueError(
                f"rotary positions turn pairs: position_embedding.rotary.fraction ({position.rotary.fraction}) of "
                f"head_dim ({self.transformer.head_dim}) must be even; it is {self.rotary_dim}"
            )
        if (scaling := position.rotary.scaling) is not None:
            given = {len(factors) for factors in (scaling.short_factors, scaling.long_factors) if factors is not None}
            if given - {self.rotary_dim // 2}:
                raise ValueError(f"scaling: {max(given)} factors, expected {self.rotary_dim // 2}, one a frequency")
            if scaling.kind == "dynamic" and self.rotary_dim <= 2:
                raise ValueError("scaling of kind dynamic: heads that turn only one pair have no base to change")

    @property
    def rotary_dim(self) -> int:
        """How much of each head's width turns with the position."""
        return int(self.transformer.head_dim * self.position_embedding.rotary.fraction)


_OF_TRAINING = re.compile(r"params\.vocab_multiple|modules\.loss\..*|.*\.(dropout|emb_dropout\.p|zero_init|freeze)")


@dataclass(frozen=True)
class ModelConfig(_Strict):
    """A whole model: the registry name and what that class builds from."""

    name: Annotated[Text, _name_in(MODELS)]
    params: Params
    modules: Modules

    @property
    def vocab_size(self) -> int:
        """Number of real tokens; a `ValueError` where no tokenizer has set it yet."""
        if self.params.vocab_size is None:
            raise ValueError("model.params.vocab_size is not known yet; it comes from the tokenizer")
        return self.params.vocab_size

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding and the head."""
        return -(-self.vocab_size // self.params.vocab_multiple) * self.params.vocab_multiple

    def with_vocab_size(self, vocab_size: int) -> ModelConfig:
        return replace(self, params=replace(self.params, vocab_size=vocab_size))

    def to_dict(self) -> dict[str, Any]:
        """Nested plain types, of which `from_dict` makes the same again."""
        return asdict(self)

    def flat(self) -> dict[str, Any]:
        """Every setting by its dotted name."""
        return {key: value for key, value in dotted(asdict(self)) if not isinstance(value, Mapping)}

    def architecture(self) -> dict[str, Any]:
        """`flat` without what training alone decides: dropout, freezing, the vocabulary's padding, the loss."""
        return {key: value for key, value in self.flat().items() if not _OF_TRAINING.fullmatch(key)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "model") -> ModelConfig:
        """Raises `UserError` listing all problems."""
        return checked(cls, values, where)
