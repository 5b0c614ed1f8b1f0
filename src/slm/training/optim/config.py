"""What an optimizer, a callback or a logger may be told, and what ``auto`` stands for. Imports no torch."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, get_args, get_type_hints

from annotated_types import Lt
from pydantic import Strict

from slm.errors import UserError
from slm.schema import (
    Count,
    Flag,
    Fraction,
    NonNegativeFloat,
    PositiveFloat,
    Probability,
    checked,
    unknown_key,
    value_problems,
)
from slm.training.config import AUTO, CurveSettings, LossWatchSettings, SampleSettings, steps_of

LR_TIMES_WIDTH = 2e-3 * 192  # Adam's best rate falls as one over the width (Yang et al. 2021, table 3)
_TABLES = 15.0  # of that, for Muon's adam_lr: tables bear more than the matrices the rule is for (docs/log.md)
_ORTHOGONAL_LR = 0.02  # of matrices that are orthogonalised, at any width (Bernstein and Newhouse 2024)
_FINE_TUNING = 0.1  # of the rate from scratch: 5e-5 at GPT-2's 768, 9e-6 at 4,096 (Llama 2's own: 2e-5)
_LORA = 10.0  # of the rate of all weights, whatever the rank (Schulman et al. 2025, "LoRA without regret")
_PREFERENCE_LR = 1e-6  # at most: DPO's paper, and SmolLM2's recipe from 135 M to 1.7 B parameters (width 576 to 2,048)
_PREFERENCE_TIMES_WIDTH = 5e-7 * 4096  # Zephyr's 7 B (Tunstall et al. 2023; with LoRA it had 5e-6)

_ADAM = ("lr", "betas", "eps", "weight_decay")
_TORCH = ("maximize", "foreach", "differentiable", "fused")
# of the optimizers in `conf/optimizer`, so that a mistyped name is answered before torch is imported
_TAKES = {
    "torch.optim.AdamW": (*_ADAM, *_TORCH, "amsgrad", "capturable"),
    "torch.optim.SGD": ("lr", "momentum", "dampening", "weight_decay", "nesterov", *_TORCH),
    "slm.training.optim.muon.Muon": (*_ADAM, "adam_lr", "momentum", "ns_steps", "fused"),
    "schedulefree.AdamWScheduleFree": (*_ADAM, "warmup_steps", "r", "weight_lr_power", "foreach"),
}
# of the callbacks in `conf/callbacks`, in place of the classes themselves, which import torch
_SETTINGS: dict[str, Callable[..., Any]] = {
    "slm.training.watch.sample_text.SampleText": SampleSettings,
    "slm.training.watch.loss_watch.LossWatch": LossWatchSettings,
    "slm.training.watch.curve.Curve": CurveSettings,
}


def fine_tuning_lr(width: int) -> float:
    """Adam's rate for all weights of a model that exists."""
    return _FINE_TUNING * LR_TIMES_WIDTH / width


def preference_lr(width: int) -> float:
    """The same where answers are made likelier and unlikelier, which breaks a model soon."""
    return min(_PREFERENCE_LR, _PREFERENCE_TIMES_WIDTH / width)


def with_rates(
    optimizer: Mapping[str, Any], width: int, from_weights: Callable[[int], float] | None, lora: bool
) -> dict[str, Any]:
    """The optimizer's settings with what is ``auto`` made numbers, for a model of this `width`. One with an ``adam_lr``
    has its ``lr`` for matrices that it orthogonalises. `from_weights` gives a width's rate of Adam for all weights of a
    model that exists (None from scratch); with `lora` thin matrices beside them are trained."""
    scratch = LR_TIMES_WIDTH / width
    rate = (from_weights(width) if from_weights else scratch) * (_LORA if lora else 1.0)
    auto = {"lr": rate}
    if "adam_lr" in optimizer:
        auto = {"lr": _ORTHOGONAL_LR * (rate / scratch), "adam_lr": _TABLES * rate}
    return {**optimizer, **{key: value for key, value in auto.items() if optimizer.get(key) == AUTO}}


def with_warmup_steps(optimizer: Mapping[str, Any], max_steps: int) -> dict[str, Any]:
    """The settings with an optimizer's own ``warmup_steps``, of which a number below 1 is a share, made steps."""
    own = optimizer.get("warmup_steps")
    return dict(optimizer) if own is None else {**optimizer, "warmup_steps": steps_of(own, max_steps)}


def problems_of(node: Mapping[str, Any], where: str, target: Callable[..., Any] | None = None) -> list[str]:
    """A line for each setting of `node`, called `where`, that its ``_target_`` does not take, or that is out of the
    range its annotation says. Until the `target` is imported only callbacks of our own are known."""
    target = _SETTINGS.get(node["_target_"], target)
    if target is None:
        return []
    try:
        takes = inspect.signature(target).parameters
    except ValueError:  # a function of C may not say
        return []
    own = {key: value for key, value in node.items() if not (key.startswith("_") and key.endswith("_"))}
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes.values())
    problems = [unknown_key(f"{where}.{key}", takes) for key in sorted(own.keys() - takes) if not takes_any]
    for name, hint in _ranges(target):
        problems += value_problems(hint, own[name], f"{where}.{name}") if name in own else []
    return problems


def _ranges(target: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    """Arguments whose annotations are types of `slm.schema`: others are for the class itself to check."""
    try:
        made_by = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]
        hints = get_type_hints(made_by, include_extras=True)
    except (NameError, AttributeError, TypeError):  # names for type checkers alone; functions of C
        return
    for name, hint in hints.items():
        kinds = (hint, *get_args(hint))
        if any(isinstance(note, Strict) for kind in kinds for note in getattr(kind, "__metadata__", ())):
            yield name, hint


def optimizer_problems(values: Mapping[str, Any]) -> list[str]:
    """A line for each setting that is missing, out of its range or, of an optimizer of `conf/optimizer`, unknown."""
    problems = []
    if not isinstance(values.get("_target_"), str):
        problems.append("optimizer._target_ is missing; name a class, e.g. torch.optim.AdamW")
    elif takes := _TAKES.get(values["_target_"]):
        problems += [unknown_key(f"optimizer.{key}", takes) for key in sorted(values.keys() - {*takes, "_target_"})]
    if "lr" not in values:
        problems.append("optimizer.lr is missing; give a number, or auto for one that follows the model's width")
    shared = {field.name for field in fields(_Ranges)}
    autos = {key for key in ("lr", "adam_lr") if values.get(key) == AUTO}
    try:
        checked(_Ranges, {key: values[key] for key in values.keys() & shared - autos}, "optimizer")
    except UserError as error:
        problems.append(str(error))
    return problems


@dataclass(frozen=True)
class _Ranges:
    """Of the settings that optimizers share, whatever else one takes; many of them would take anything."""

    lr: PositiveFloat = 1.0  # may be "auto", checked apart
    adam_lr: PositiveFloat = 1.0
    weight_decay: NonNegativeFloat = 0.0
    eps: PositiveFloat = 1e-8
    betas: tuple[Probability, Probability] = (0.9, 0.999)
    alpha: Fraction = 0.99
    momentum: Probability | None = None
    dampening: Probability = 0.0
    nesterov: Flag = False
    ns_steps: Annotated[Count, Lt(100)] = 5
    warmup_steps: NonNegativeFloat = 0.0
    r: NonNegativeFloat = 0.0
    weight_lr_power: NonNegativeFloat = 0.0
    amsgrad: Flag = False
    centered: Flag = False
    maximize: Flag = False
    foreach: Flag | None = None
    fused: Flag | None = None
    capturable: Flag = False
    differentiable: Flag = False

    def __post_init__(self) -> None:
        if self.nesterov and (self.momentum == 0 or self.dampening):
            raise ValueError(
                f"nesterov looks ahead along a momentum above 0 that is not dampened; got momentum {self.momentum} and "
                f"dampening {self.dampening}; set optimizer.nesterov=false, or change these"
            )
        if self.warmup_steps >= 1 and self.warmup_steps != int(self.warmup_steps):
            raise ValueError(f"warmup_steps must be a whole number, or a share of all steps; got {self.warmup_steps}")
