"""How to train, as `conf/trainer`, `conf/scheduler` and `conf/callbacks` say it. Imports no torch."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import PlainValidator

from slm.errors import UserError, did_you_mean, refuse
from slm.schema import (
    FORBID_EXTRA,
    Count,
    Flag,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    Text,
    checked,
    together,
    unknown_key,
)
from slm.suggest.nearest import derived
from slm.training.save_points import SavePoints, WordPoints, save_points_of

AUTO = "auto"
_WINDOWS_AT_ONCE = 8  # of batch_size=auto

SHORT_NAMES = {"16": "16-mixed", "bf16": "bf16-mixed", "32": "32-true", "64": "64-true"}
PRECISIONS = ("auto", *SHORT_NAMES, "16-mixed", "16-true", "bf16-mixed", "bf16-true", "32-true", "64-true")

_CLOCK = re.compile(r"(\d+):(\d\d?):(\d\d?):(\d\d?)")
_UNITS = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?:in)?)?(?:(\d+)s)?")
_FORMS = "must be as 1h30m, or DD:HH:MM:SS, in YAML in quotes (00:01:30:00), or a mapping ({hours: 1, minutes: 30})"

# Each schedule, and what it reads.
SCHEDULES = {
    "cosine": ("warmup_steps", "min_lr_ratio", "on_extend"),
    "linear": ("warmup_steps", "min_lr_ratio", "on_extend"),
    "wsd": ("warmup_steps", "min_lr_ratio", "decay_fraction", "on_extend"),
    "constant": ("warmup_steps",),
    "none": (),
}


@dataclass(frozen=True)
class LightningConfig:
    """Settings of Lightning's Trainer that are passed on as they are, with what they may be."""

    __pydantic_config__ = FORBID_EXTRA
    accelerator: Text = "auto"
    benchmark: Flag | None = None
    detect_anomaly: Flag = False
    deterministic: Literal[True, False, "warn"] | None = None
    devices: Any = "auto"  # Lightning itself says best what it can be
    enable_progress_bar: Flag = True
    inference_mode: Flag = True
    limit_val_batches: NonNegativeFloat | None = None
    num_nodes: Count = 1
    profiler: Literal["simple", "advanced", "pytorch", "xla"] | None = None
    strategy: Text = "auto"
    sync_batchnorm: Flag = False

    def __post_init__(self) -> None:
        limit = self.limit_val_batches
        if limit is not None and limit > 1 and limit != int(limit):
            raise ValueError(f"limit_val_batches must be a whole number or a fraction up to 1; got {limit}")


LIGHTNING = tuple(field.name for field in fields(LightningConfig))


def no_setting(key: str) -> str | None:
    """The line that refuses a setting of Lightning's that follows from others here, or one of before; else None."""
    section, _, name = key.rpartition(".")
    if section == "trainer" and name in derived():
        return f"trainer.{name} follows from other settings here; set {derived()[name]}"
    of_before = "is no setting any more: the floor is a fraction of the peak rate, scheduler.min_lr_ratio"
    return f"{key} {of_before} (min_lr / optimizer.lr)" if key == "scheduler.min_lr" else None


@dataclass(frozen=True)
class SchedulerConfig:
    """The learning rate over the steps; formulas in `slm.training.optim.schedules`."""

    __pydantic_config__ = FORBID_EXTRA
    name: Text = "cosine"  # one of `SCHEDULES`; constant warms up, none does not
    warmup_steps: NonNegativeFloat | None = None  # from 0 to the peak, ``optimizer.lr``; below 1 a share of all steps
    min_lr_ratio: Fraction | None = None  # where the decay ends, at ``trainer.max_steps``, of the peak
    decay_fraction: Fraction | None = None  # of the steps, that wsd's last phase takes
    on_extend: Literal["rewarm", "stretch", "hold"] | None = None  # what becomes of it in a run that goes on for longer

    def __post_init__(self) -> None:
        if self.name not in SCHEDULES:
            raise ValueError(
                f"no schedule is called '{self.name}'{did_you_mean(self.name, SCHEDULES)} "
                f"(known: {', '.join(SCHEDULES)})"
            )
        given = [name for name in SCHEDULES["wsd"] if getattr(self, name) is not None]
        if unread := [name for name in given if name not in SCHEDULES[self.name]]:
            raise ValueError(f"{' and '.join(unread)} does not go with the schedule '{self.name}'; leave it out")
        warmup = self.warmup_steps or 0
        if warmup >= 1 and warmup != int(warmup):
            raise ValueError(f"warmup_steps must be a whole number, or a share of all steps below 1; got {warmup}")

    def warmup(self, max_steps: int) -> int:
        return steps_of(self.warmup_steps or 0, max_steps)


def steps_of(steps_or_share: float, max_steps: int) -> int:
    """Steps; a number below 1 is a share of `max_steps`."""
    return round(steps_or_share * max_steps if steps_or_share < 1 else steps_or_share)


def check_precision(name: str | int, where: str) -> None:
    """Raise `UserError` unless `name` is one of `PRECISIONS`; `where` is its key."""
    if str(name) not in PRECISIONS:
        known = ", ".join(PRECISIONS)
        raise UserError(f"{where}: there is no '{name}'{did_you_mean(str(name), PRECISIONS)} (known: {known})")


def seconds_of(value: object) -> float | None:
    """Seconds of a time that is written as ``1d2h30m15s``, in parts, or ``DD:HH:MM:SS``, or as a mapping of what
    `datetime.timedelta` takes."""
    if value is None:
        return None
    units: Any = value
    written = value.strip() if isinstance(value, str) else ""
    if written and (found := _CLOCK.fullmatch(written) or _UNITS.fullmatch(written)):
        numbers = (int(number or 0) for number in found.groups())
        units = dict(zip(("days", "hours", "minutes", "seconds"), numbers, strict=True))
    try:
        duration = timedelta(**units).total_seconds()
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{_FORMS}; got {value!r}") from None
    if duration <= 0:
        raise ValueError(f"must be more than no time; got {value!r}")
    return duration


@dataclass(frozen=True)
class TrainerConfig:
    """The training loop, in optimizer steps; `conf/trainer/default.yaml` has a line on each setting."""

    __pydantic_config__ = FORBID_EXTRA
    max_steps: Count | None
    batch_size: Count | Literal["auto"]  # windows a micro-batch on one device
    log_every: Count
    val_every: Count
    save_every: Count
    max_epochs: PositiveFloat | None = None  # of a mixture a pass is as many windows as all parts have
    most_passes: PositiveFloat | None = None  # a run that asks for more over the data is refused
    # in seconds, from a session's first step; None for any number
    max_time: Annotated[float | None, PlainValidator(seconds_of)] = None
    global_batch_size: Count | None = None  # windows an optimizer step; None for one micro-batch a device
    keep: NonNegativeInt = 2
    keep_every_hours: PositiveFloat | None = None
    # whose checkpoints stay for good
    save_at: Annotated[SavePoints, PlainValidator(save_points_of)] = None
    async_save: Flag = True
    grad_clip: NonNegativeFloat = 0.0
    compile: Flag = False
    recompute: Flag = False  # keep only each block's input for the backward pass (Chen et al. 2016)
    precision: str | int = "auto"
    on_bad_step: Literal["skip", "rewind", "stop"] = "skip"  # its update is left out in any case
    max_bad_steps: NonNegativeInt = 10
    lightning: dict[str, Any] = field(default_factory=dict)  # goes straight to Lightning's ``Trainer``

    def __post_init__(self) -> None:
        if (self.max_steps is None) == (self.max_epochs is None):
            given = f"max_steps={self.max_steps} and max_epochs={self.max_epochs:g}" if self.max_epochs else "neither"
            raise ValueError(f"give max_steps or max_epochs, and the other as null; got {given}")

    @property
    def steps(self) -> int:
        """`max_steps`, when `slm.training.plan.with_steps` has seen the data."""
        assert self.max_steps is not None
        return self.max_steps

    @property
    def save_points(self) -> list[int]:
        """The steps that `save_at` names, as far as `steps`."""
        if self.save_at == "log2":
            return [2**power for power in range(self.steps.bit_length())]
        return sorted({step for step in self._named_steps if step <= self.steps})

    def is_save_point(self, step: int) -> bool:
        """Whether `save_at` names `step`."""
        return step > 0 and step & (step - 1) == 0 if self.save_at == "log2" else step in self._named_steps

    @property
    def _named_steps(self) -> tuple[int, ...]:
        return self.save_at if isinstance(self.save_at, tuple) else ()

    @property
    def word_points(self) -> WordPoints | None:
        """What `save_at` names where it counts words."""
        return self.save_at if isinstance(self.save_at, WordPoints) else None

    def is_saved(self, step: int) -> bool:
        """Whether `step` is saved whatever the validation says."""
        return step % self.save_every == 0 or self.is_save_point(step)

    @property
    def windows_at_once(self) -> int:
        """`batch_size`; until `slm.training.plan.with_batches` has seen the device, the most that ``auto`` may be."""
        return _WINDOWS_AT_ONCE if self.batch_size == AUTO else int(self.batch_size)

    def accumulation(self, n_devices: int) -> int:
        """Micro-batches each device takes in one optimizer step; `UserError` if ``global_batch_size`` is not a multiple
        of what the devices take at once."""
        size = self.windows_at_once
        at_once = size * n_devices
        wanted = self.global_batch_size or at_once
        if wanted % at_once:
            raise UserError(
                f"trainer.global_batch_size ({wanted}) must be a multiple of batch_size x devices "
                f"({size} x {n_devices} = {at_once}); set it to {max(1, round(wanted / at_once)) * at_once}"
            )
        return wanted // at_once


@dataclass(frozen=True)
class SampleSettings:
    """Of `SampleText`: what to continue, and the rest as in `GenerationConfig`."""

    prompt: Text
    max_new_tokens: Count
    temperature: PositiveFloat
    top_k: NonNegativeInt
    seed: NonNegativeInt


@dataclass(frozen=True)
class LossWatchSettings:
    """Of `LossWatch`; nothing is said before half of `window` steps are made."""

    window: Count = 100
    sigmas: NonNegativeFloat = 6.0
    factor: NonNegativeFloat = 1.2


@dataclass(frozen=True)
class CurveSettings:
    """Of `Curve`: none."""


def scheduler_config(values: Mapping[str, Any]) -> SchedulerConfig:
    """`SchedulerConfig` of the configuration's `scheduler`; raises `UserError` with all problems."""
    refuse(line for key in values if (line := no_setting(f"scheduler.{key}")))
    return checked(SchedulerConfig, values, "scheduler")


def trainer_config(values: Mapping[str, Any]) -> TrainerConfig:
    """`TrainerConfig` of the configuration's `trainer`; raises `UserError` with all problems."""
    ours = {field.name for field in fields(TrainerConfig)} - {"lightning"}
    unknown = (f"trainer.{key}" for key in values.keys() - ours - set(LIGHTNING))
    refuse(sorted(no_setting(key) or unknown_key(key, [*ours, *LIGHTNING]) for key in unknown))
    own = {key: value for key, value in values.items() if key in ours}
    lightning = {key: value for key, value in values.items() if key not in ours}
    config, _ = together(
        lambda: checked(TrainerConfig, {**own, "lightning": lightning}, "trainer"),
        lambda: checked(LightningConfig, lightning, "trainer"),
    )
    check_precision(config.precision, "trainer.precision")
    return config
