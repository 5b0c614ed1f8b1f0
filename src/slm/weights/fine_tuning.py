"""What may change when training starts from weights that exist. Imports no torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from slm.errors import UserError, first_few
from slm.models.config import ModelConfig, RotaryScaling
from slm.schema import FORBID_EXTRA, Count, Flag, PositiveFloat, Probability, Text

ADAPTER_CONFIG = "adapter_config.json"  # by which the folder of a PEFT adapter is known


@dataclass(frozen=True)
class FineTuning:
    """Training from weights that exist."""

    __pydantic_config__ = FORBID_EXTRA
    weights: Text  # whatever `slm.weights.open_model.find_source` takes
    base: Text | None = None  # of a PEFT adapter: the model that it was trained beside
    # to reach further than trained for: by position interpolation (Chen et al. 2023; learned positions are interpolated
    # alike), by a larger rotary base, or by both (Peng et al. 2023)
    extend_positions: Literal["linear", "ntk", "yarn"] | None = None
    grow_vocab: Literal["mean", "normal"] | None = None  # rows of new tokens: of the others' distribution (Hewitt 2021)


@dataclass(frozen=True)
class Lora:
    """Low-rank adaptation (Hu et al. 2021)."""

    __pydantic_config__ = FORBID_EXTRA
    rank: Count = 8  # of the update of each matrix
    alpha: PositiveFloat = 16.0  # the update is scaled by ``alpha / rank``,
    rslora: Flag = False  # or by ``alpha / sqrt(rank)`` (Kalajdzievski 2023)
    dropout: Probability = 0.0  # on what the update reads
    targets: Literal["all"] | tuple[Text, ...] = "all"  # names of linear layers
    also_train: tuple[Text, ...] = ()  # names of modules that are trained whole
    weights: Text | None = None  # the folder of a PEFT adapter, which is gone on with

    def __post_init__(self) -> None:
        if not self.targets:
            raise ValueError("targets is empty; name linear layers, or all")

    @property
    def scale(self) -> float:
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


FINE_TUNING_KEYS = tuple(field.name for field in fields(FineTuning))


def shape_values(model: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration's `model` without what says where training starts: the values of a `ModelConfig`."""
    return {key: value for key, value in model.items() if key not in FINE_TUNING_KEYS}


def fine_tuned_config(source: ModelConfig, given: Mapping[str, Any], extend: str | None) -> ModelConfig:
    """The shape to train: that of the weights, `source`, with what training decides taken from `given`, the
    configuration's `model`: whole, and then it must be the same shape, or without a name, and then only what it sets is
    taken. `extend` is the method for a `max_seq_len` beyond the weights'."""
    values = _overlaid(source.to_dict(), given) if given.get("name") is None else dict(given)
    wanted_len = values["params"]["max_seq_len"]
    config = ModelConfig.from_dict(values)
    if config.params.vocab_size not in (None, source.vocab_size):
        raise UserError(
            f"model.params.vocab_size ({config.params.vocab_size}) is not the weights' {source.vocab_size}; leave it "
            "out: a tokenizer with more tokens brings its own, and model.grow_vocab makes rows for them"
        )
    config = config.with_vocab_size(source.vocab_size)
    theirs, ours = source.architecture(), config.architecture()
    different = [
        f"{key}={ours[key]} (the weights': {theirs.get(key)})"
        for key in ours
        if ours[key] != theirs.get(key) and key != "params.max_seq_len"  # `_extended` sees to it
    ]
    if different:
        raise UserError(
            f"model.weights have another shape than model: {first_few(different)}; "
            "leave model= out to take the weights' own"
        )
    return _extended(config, source.params.max_seq_len, wanted_len, extend)


def _extended(config: ModelConfig, trained: int, wanted: int, method: Any) -> ModelConfig:
    position = config.modules.position_embedding
    free = position.kind in ("none", "sinusoidal")  # functions of the position, at any length
    if wanted <= trained or (free and method is None):
        if method is not None:
            raise UserError(
                f"model.extend_positions={method} has nothing to do: model.params.max_seq_len ({wanted}) is not above "
                f"the weights' {trained}; leave it out"
            )
        return config
    methods = {"rotary": ("linear", "ntk", "yarn"), "learned": ("linear",)}.get(position.kind, ())
    if method not in methods:
        said = f"model.extend_positions={method} does not go with" if method else "to reach it, name a method for"
        raise UserError(
            f"model.params.max_seq_len ({wanted}) is above the weights' {trained}; {said} {position.kind} positions "
            f"(model.extend_positions={'|'.join(methods) or 'null'})"
        )
    if position.kind == "learned":
        return config
    if position.rotary.scaling is not None:
        raise UserError(
            f"model.extend_positions={method}: the weights' rotary positions are scaled already "
            f"({position.rotary.scaling.kind}); set model.params.max_seq_len to at most {trained}"
        )
    dim = config.modules.rotary_dim
    if method == "ntk" and dim <= 2:
        raise UserError("model.extend_positions=ntk: heads that turn only one pair have no base to change; take linear")
    factor, changed = wanted / trained, {}
    if method == "ntk":  # the longest wave grows by the factor, the shortest stays (Peng et al. 2023, section 3.1)
        changed["base"] = position.rotary.base * factor ** (dim / (dim - 2))
    else:
        changed["scaling"] = RotaryScaling(method, factor, trained if method == "yarn" else None)
    rotary = replace(position.rotary, **changed)
    modules = replace(config.modules, position_embedding=replace(position, rotary=rotary))
    return replace(config, modules=modules)


def _overlaid(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`below` with every value of `above` that is not null."""
    result = dict(below)
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = _overlaid(result[key], value)
        elif value is not None:
            result[key] = value
    return result
