"""What a family of published models is: its configuration both ways, and its names for our tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from slm.models.config import ModelConfig
from slm.weights.foreign_config import ForeignConfig, foreign_scaling
from slm.weights.name_table import Entry

Values = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """One of their settings and the one of our `transformer` that means the same."""

    theirs: str
    ours: str
    kind: Literal["count", "number", "flag", "activation"]  # the method of `ForeignConfig` that reads it
    default: Any = None  # or a function of our values that were read before it; None for one that must be there


@dataclass(frozen=True)
class Family:
    """One ``model_type`` of Hugging Face."""

    model_type: str
    architecture: str  # as ``config.json`` says it
    settings: tuple[Setting, ...]  # of the transformer; of two of one name of theirs the last is written
    table: Callable[[ModelConfig], list[Entry]]  # their tensor names, for a model of this shape
    base_prefix: str  # of all names but the head's; files of the bare model lack it
    head: str  # its tensor's name; stored again by some files although it is tied
    buffers: tuple[str, ...] = ()  # ends of names that older files hold beside the weights: masks and frequencies
    length: tuple[str, int] = ("max_position_embeddings", 2048)  # their name of `max_seq_len`, and its default
    vocab_size: int | None = None
    tied: bool = False
    rotary: tuple[Any, ...] | None = None  # arguments of `ForeignConfig.rotary`; None where positions are learned
    fixed: Mapping[str, Any] = field(default_factory=dict)  # of our transformer, alike in all models of the family
    only: Mapping[str, Any] = field(default_factory=dict)  # the one value of theirs that our model can follow
    written: Mapping[str, Any] = field(default_factory=dict)  # what their configuration gets beside
    gelu_tanh: str = "gelu_pytorch_tanh"  # their name of that activation, which has two
    read_more: Callable[[ForeignConfig], Values] = lambda theirs: {}  # what no `Setting` can say, of our transformer
    write_more: Callable[[ModelConfig], Values] = lambda config: {}  # and of their configuration

    def read_config(self, theirs: ForeignConfig) -> Values:
        """The nested values of a `ModelConfig`; what our model cannot follow is noted in `theirs`."""
        for key, value in self.only.items():
            theirs.only(key, value)
        transformer = dict(self.fixed)
        for setting in self.settings:
            default = setting.default(transformer) if callable(setting.default) else setting.default
            transformer[setting.ours] = getattr(theirs, setting.kind)(setting.theirs, default)
        position = {"kind": "rotary", "rotary": theirs.rotary(*self.rotary)} if self.rotary else {"kind": "learned"}
        max_seq_len, vocab_size = theirs.count(*self.length), theirs.count("vocab_size", self.vocab_size)
        modules = {
            "position_embedding": position,
            "transformer": {**transformer, **self.read_more(theirs)},
            "output_projection": {"tie_weights": theirs.flag("tie_word_embeddings", self.tied)},
        }
        # a vocabulary without padding, so that files can be used as they lie
        params = {"max_seq_len": max_seq_len, "vocab_size": vocab_size, "vocab_multiple": 1}
        return {"name": "gpt", "params": params, "modules": modules}

    def write_config(self, config: ModelConfig) -> Values:
        """The ``config.json`` of our model, but for token ids and dtype: what it cannot say shows when read back."""
        settings = {setting.theirs: getattr(config.modules.transformer, setting.ours) for setting in self.settings}
        values = {
            "architectures": [self.architecture],
            "model_type": self.model_type,
            "vocab_size": config.vocab_size,
            "tie_word_embeddings": config.modules.output_projection.tie_weights,
            "initializer_range": 0.02,
            "use_cache": True,
            self.length[0]: config.params.max_seq_len,
            **{name: self.gelu_tanh if value == "gelu_tanh" else value for name, value in settings.items()},
            **self.written,
        }
        if self.rotary:
            rotary = config.to_dict()["modules"]["position_embedding"]["rotary"]
            values.update(zip(self.rotary[:2], (rotary["base"], rotary["fraction"]), strict=False))
            values["rope_scaling"] = foreign_scaling(rotary["scaling"])
        return {**values, **self.write_more(config)}


def with_bias(ours: str, theirs: str, bias: bool, **how: Any) -> list[Entry]:
    """Weight and, where there is one, bias of a module that both sides have."""
    kinds = ("weight", "bias") if bias else ("weight",)
    return [Entry(f"{ours}.{kind}", (f"{theirs}.{kind}",), **how) for kind in kinds]


def whole_table(config: ModelConfig, embedding: str, layers: list[Entry], head: str) -> list[Entry]:
    """`layers` between the token embedding, which comes first, and the head of a model that does not tie it."""
    tied = config.modules.output_projection.tie_weights
    return [
        Entry("token_embedding.weight", (embedding,), padded=True),
        *layers,
        *([] if tied else [Entry("output_projection.weight", (head,), padded=True)]),
    ]
