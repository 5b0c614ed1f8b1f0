"""The shape of a model, as frozen dataclasses with the key names of `conf/model/*.yaml`.

Pure data: this file imports no torch, so that a whole configuration can be checked in a blink.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any

from pydantic import AfterValidator

from slm.registry import ACTIVATIONS, LOSSES, MODELS, NORMS, POSITION_EMBEDDINGS, Registry
from slm.schema import FORBID_EXTRA, Count, Flag, Int, PositiveFloat, Probability, Text, checked


def _name_in(registry: Registry) -> AfterValidator:
    """Refuses a name that `registry` does not hold, with the others' problems and under its own key."""

    def check(name: str) -> str:
        registry.check(name)
        return name

    return AfterValidator(check)


@dataclass(frozen=True)
class Params:
    """Sizes shared by several modules.

    Attributes:
        max_seq_len: the longest sequence the model can take, in tokens.
        dropout: default of every dropout in the model.
        vocab_size: number of real tokens; None until the tokenizer is known.
        vocab_multiple: embedding and head rows are padded up to a multiple of this for speed;
            the extra rows are never learnt, scored or sampled.
    """

    __pydantic_config__ = FORBID_EXTRA
    max_seq_len: Count
    dropout: Probability = 0.0
    vocab_size: Count | None = None
    vocab_multiple: Count = 64


@dataclass(frozen=True)
class TokenEmbeddingConfig:
    """Token embedding."""

    __pydantic_config__ = FORBID_EXTRA
    freeze: Flag = False


@dataclass(frozen=True)
class PositionEmbeddingConfig:
    """How positions enter: ``learned`` (GPT-2), ``sinusoidal`` or ``none``."""

    __pydantic_config__ = FORBID_EXTRA
    kind: Annotated[Text, _name_in(POSITION_EMBEDDINGS)] = "learned"
    freeze: Flag = False


@dataclass(frozen=True)
class EmbeddingDropoutConfig:
    """Dropout on the sum of token and position embedding."""

    __pydantic_config__ = FORBID_EXTRA
    p: Probability = 0.0


@dataclass(frozen=True)
class TransformerConfig:
    """The stack of blocks.

    Attributes:
        dim: width C of the residual stream.
        mlp_mult: the MLP's hidden width is ``mlp_mult * dim``.
        bias: biases in norms, MLP and the attention's output projection.
        qkv_bias: biases in the fused query/key/value projection.
        prenorm: norm before each sublayer and once at the end (GPT-2); False: after each (GPT-1).
    """

    __pydantic_config__ = FORBID_EXTRA
    dim: Count
    n_layers: Count
    n_heads: Count
    dropout: Probability = 0.0
    mlp_mult: PositiveFloat = 4
    activation: Annotated[Text, _name_in(ACTIVATIONS)] = "gelu_tanh"
    bias: Flag = True
    qkv_bias: Flag = True
    prenorm: Flag = True
    norm: Annotated[Text, _name_in(NORMS)] = "layer_norm"
    norm_eps: PositiveFloat = 1e-5
    freeze: Flag = False

    def __post_init__(self) -> None:
        if self.dim % self.n_heads:
            raise ValueError(f"dim ({self.dim}) must be a multiple of n_heads ({self.n_heads})")
        if self.mlp_dim < 1:
            raise ValueError(f"mlp_mult ({self.mlp_mult}) times dim ({self.dim}) must be at least 1")

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.dim // self.n_heads

    @property
    def mlp_dim(self) -> int:
        """Hidden width of the MLP."""
        return round(self.mlp_mult * self.dim)


@dataclass(frozen=True)
class OutputProjectionConfig:
    """The head. Tied, it is the token embedding's own weight and has no parameter."""

    __pydantic_config__ = FORBID_EXTRA
    tie_weights: Flag = True
    freeze: Flag = False


@dataclass(frozen=True)
class LossConfig:
    """The training loss.

    Attributes:
        ignore_index: a label that is not learnt, besides the negative ones that mark places with none.
    """

    __pydantic_config__ = FORBID_EXTRA
    kind: Annotated[Text, _name_in(LOSSES)] = "cross_entropy"
    ignore_index: Int = -100


@dataclass(frozen=True)
class Modules:
    """The pluggable parts, in the order data passes them."""

    __pydantic_config__ = FORBID_EXTRA
    transformer: TransformerConfig
    token_embedding: TokenEmbeddingConfig = field(default_factory=TokenEmbeddingConfig)
    position_embedding: PositionEmbeddingConfig = field(default_factory=PositionEmbeddingConfig)
    emb_dropout: EmbeddingDropoutConfig = field(default_factory=EmbeddingDropoutConfig)
    output_projection: OutputProjectionConfig = field(default_factory=OutputProjectionConfig)
    loss: LossConfig = field(default_factory=LossConfig)

    def __post_init__(self) -> None:
        if self.output_projection.tie_weights and self.output_projection.freeze != self.token_embedding.freeze:
            raise ValueError(
                "output_projection.freeze and token_embedding.freeze differ, but tie_weights makes them one "
                "tensor; set both alike, or tie_weights=false"
            )


@dataclass(frozen=True)
class ModelConfig:
    """A whole model: the registry name and what that class builds from."""

    __pydantic_config__ = FORBID_EXTRA
    name: Annotated[Text, _name_in(MODELS)]
    params: Params
    modules: Modules

    @property
    def vocab_size(self) -> int:
        """Number of real tokens; raises if no tokenizer has set it yet."""
        if self.params.vocab_size is None:
            raise ValueError("model.params.vocab_size is not known yet; it comes from the tokenizer")
        return self.params.vocab_size

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding and the head."""
        multiple = self.params.vocab_multiple
        return -(-self.vocab_size // multiple) * multiple

    def with_vocab_size(self, vocab_size: int) -> ModelConfig:
        """The same shape for a tokenizer of `vocab_size` tokens."""
        return replace(self, params=replace(self.params, vocab_size=vocab_size))

    def to_dict(self) -> dict[str, Any]:
        """Nested plain types; `from_dict` is the inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "model") -> ModelConfig:
        """Checked construction; raises `UserError` listing all problems."""
        return checked(cls, values, where)
