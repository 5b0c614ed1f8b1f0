"""What a family of published models is: its ``config.json`` both ways, and its names for our tensors. It is read with
care: what our model cannot do is refused, not skipped."""

from __future__ import annotations

import math
import reprlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from slm.errors import UserError
from slm.models.config import ModelConfig
from slm.weights.name_table import Entry

Values = dict[str, Any]
_ACTIVATIONS = {
    **{"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"},
    **{"silu": "silu", "swish": "silu", "relu": "relu", "relu2": "relu2"},
}


@dataclass
class ForeignConfig:
    """Values of a ``config.json``, or of an object in it. A wrong one is noted as it is read, and some right one
    returned, so that all problems are found in one pass."""

    values: Mapping[str, Any]
    where: str  # for messages
    problems: list[str] = field(default_factory=list)  # settings that our model cannot follow, a phrase each
    _prefix: str = ""

    def get(self, key: str, default: Any = None) -> Any:
        """`default` stands for null too."""
        value = self.values.get(key)
        return default if value is None else value

    def count(self, key: str, default: int | None = None) -> int:
        """A whole number above zero; missing, if the family has no default, is a problem too."""
        return self._above_zero(int, key, default, "a whole number above 0") or 1

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number above zero; missing, if there is no default, is a problem too."""
        return float(self._above_zero(int | float, key, default, "a number above 0") or 1.0)

    def numbers(self, key: str) -> tuple[float, ...]:
        """A list of finite numbers above zero; anything else is a problem."""
        values = self.get(key)
        each = [replace(self, values={key: one}, problems=[]) for one in values] if isinstance(values, list) else []
        found = tuple(one.number(key) for one in each)
        if not each or any(one.problems for one in each):
            self._note(key, "(a list of numbers above 0 is expected)")
        return found

    def flag(self, key: str, default: bool) -> bool:
        value = self.get(key, default)
        if not isinstance(value, bool):
            self._note(key, "(allowed are true and false)")
        return bool(value)

    def only(self, key: str, allowed: Any) -> None:
        """Note a problem unless the value is the one that our model can follow."""
        if self.get(key, allowed) != allowed:
            self._note(key, f"(only {allowed!r} can be followed)")

    def activation(self, key: str, default: str) -> str:
        name = self.get(key, default)
        if not isinstance(name, str) or name not in _ACTIVATIONS:
            self._note(key, f"(known: {', '.join(_ACTIVATIONS)})")
            return "gelu"
        return _ACTIVATIONS[name]

    def rotary(self, base_key: str, fraction_key: str | None = None, fraction: float = 1.0) -> dict[str, Any]:
        """Our `rotary` settings, from where transformers 5 takes them: ``rope_scaling``, ``rope_parameters``,
        then version 4's keys of the base and of the share of a head that turns (None where heads turn whole)."""
        rope = self._object("rope_scaling") or self._object("rope_parameters") or replace(self, values={})
        if fraction_key is None:
            for config in (self, rope):
                config.only("partial_rotary_factor", 1.0)
        else:
            fraction = rope.number("partial_rotary_factor", self.number(fraction_key, fraction))
        return {
            "base": rope.number("rope_theta", self.number(base_key, 10000.0)),
            "fraction": fraction,
            "scaling": self._scaling(rope),
        }

    def stop_if_any(self) -> None:
        """Raise `UserError` with all problems noted."""
        if self.problems:
            raise UserError(f"{self.where}: slm has no model for {'; '.join(dict.fromkeys(self.problems))}")

    def _scaling(self, rope: ForeignConfig) -> dict[str, Any] | None:
        key = "rope_type" if rope.get("rope_type") is not None else "type"
        kind = rope.get(key, "default")
        if kind == "default":
            return None
        kind = {"su": "longrope"}.get(kind, kind) if isinstance(kind, str) else kind  # as Phi-3's first files say
        if kind not in ("linear", "llama3", "yarn", "dynamic", "longrope"):
            rope._note(key, "(known: default, linear, llama3, yarn, dynamic, longrope)")
            return None
        if kind == "linear":
            return {"kind": kind, "factor": rope.number("factor")}
        longest = self.count("max_position_embeddings")
        if kind == "dynamic":  # of the model's whole length, whatever its original one is said to be
            return {"kind": kind, "factor": rope.number("factor"), "original_max_seq_len": longest}
        inside = rope.count("original_max_position_embeddings", longest)
        original = self.count("original_max_position_embeddings", inside)  # as Phi-3 has it, which comes first
        ours: dict[str, Any] = {"kind": kind, "original_max_seq_len": original}
        if kind == "llama3":
            names = ("factor", "low_freq_factor", "high_freq_factor")
            return {**ours, **{name: rope.number(name) for name in names}}
        if kind == "longrope":
            factors = {f"{name}s": rope.numbers(name) for name in ("short_factor", "long_factor")}
            ours["factor"] = rope.number("factor", longest / original)
            return {**ours, **factors, "attention_factor": _attention_factor(rope, ours["factor"])}
        rope.only("truncate", True)
        ours["factor"] = rope.number("factor", longest / original)
        ours.update({name: rope.number(name) for name in ("beta_fast", "beta_slow") if rope.get(name)})
        return {**ours, "attention_factor": _attention_factor(rope, ours["factor"])}

    def _object(self, key: str) -> ForeignConfig | None:
        """The object called `key`, which notes into the same problems; None if there is none, or it is empty."""
        values = self.get(key, {})
        if not isinstance(values, Mapping):
            self._note(key, "(an object is expected)")
            return None
        return replace(self, values=values, _prefix=f"{key}.") if values else None

    def _above_zero(self, kind: Any, key: str, default: Any, expected: str) -> Any:
        """The value, or None, noted, if it is not `expected`."""
        value = self.get(key, default)
        if isinstance(value, kind) and not isinstance(value, bool) and 0 < value <= sys.float_info.max:
            return value
        if value is None:
            self.problems.append(f"{self._prefix}{key} (missing)")
        else:
            self._note(key, f"({expected} is expected)")
        return None

    def _note(self, key: str, why: str) -> None:
        self.problems.append(f"{self._prefix}{key}={reprlib.repr(self.get(key))} {why}")


def foreign_scaling(scaling: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Our `rotary.scaling` as ``rope_scaling``, which both version 4 and version 5 of transformers read."""
    if scaling is None:
        return None
    theirs = {"rope_type": scaling["kind"], "factor": scaling["factor"]}
    if scaling["original_max_seq_len"] is not None:
        theirs["original_max_position_embeddings"] = scaling["original_max_seq_len"]
    names = {
        "llama3": ("low_freq_factor", "high_freq_factor"),
        "yarn": ("beta_fast", "beta_slow", "attention_factor"),
        "longrope": ("attention_factor", "short_factors", "long_factors"),
    }
    said = {name: scaling[name] for name in names.get(scaling["kind"], ()) if scaling[name] is not None}
    lists = {name.replace("factors", "factor"): list(value) for name, value in said.items() if isinstance(value, tuple)}
    return {**theirs, **{name: value for name, value in said.items() if not isinstance(value, tuple)}, **lists}


def _attention_factor(rope: ForeignConfig, factor: float) -> float | None:
    """yarn's factor of cosines and sines, given directly or by DeepSeek's two mscales; None for the paper's."""
    if rope.get("attention_factor") is not None:
        return rope.number("attention_factor")
    if not (rope.get("mscale") and rope.get("mscale_all_dim")):
        return None
    log = 0.1 * math.log(max(factor, 1.0))
    return (log * rope.number("mscale") + 1.0) / (log * rope.number("mscale_all_dim") + 1.0)


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
        position: Values = {"kind": "learned"}
        if self.rotary:
            position = {"kind": "rotary", "rotary": theirs.rotary(*self.rotary)}
        max_seq_len, vocab_size = theirs.count(*self.length), theirs.count("vocab_size", self.vocab_size)
        if (scaling := position.get("rotary", {}).get("scaling")) and scaling["kind"] == "dynamic":
            max_seq_len = round(max_seq_len * scaling["factor"])  # theirs is the length that it was trained for
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
            scaling = rotary["scaling"]
            values["rope_scaling"] = foreign_scaling(scaling)
            if scaling is not None and scaling["kind"] == "dynamic":
                values[self.length[0]] = scaling["original_max_seq_len"]
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
