"""Learning-rate schedules, as factors of the peak rate over the optimizer steps."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from slm.training.config import SchedulerConfig


@dataclass(frozen=True)
class Schedule:
    """The factor of the peak rate at each optimizer step; of plain values, since checkpoints hold it.

    Every parameter group's own peak is multiplied by the `factor`. All but ``none`` rise linearly over the warmup:
    ``(step + 1) / (warmup + 1)``. With ``t`` the share of the steps after the warmup that is done, and
    ``f = min_lr_ratio``:

    - ``cosine``: ``f + (1 - f) * (1 + cos(pi t)) / 2`` (Loshchilov and Hutter 2017, eq. 5)
    - ``linear``: ``1 - (1 - f) * t``
    - ``wsd``: 1, then linear down to ``f`` over the last ``decay_fraction`` of all steps, or over what the warmup
      leaves of them (warmup-stable-decay, Hu et al. 2024, section 4.2)
    - ``constant``: 1
    - ``none``: 1 from the first step on, no warmup

    A run that is gone on with for longer may begin its schedule again at a later step, from the rate that it has then.
    """

    config: SchedulerConfig
    max_steps: int  # where it ends
    shares_of: int  # the steps that a warmup below 1 is a share of: of a run that became longer the first number
    begins_at: int = 0
    begins_with: float = 0.0  # the factor that the warmup rises from
    falls_from: int = 0  # wsd does not fall before this step
    held: float | None = None  # the factor of all steps from here on

    @classmethod
    def of(cls, config: SchedulerConfig, max_steps: int) -> "Schedule":
        """That of a run from its first step on."""
        return cls(config, max_steps, max_steps)

    @property
    def warmup(self) -> int:
        """In steps."""
        return self.config.warmup(self.shares_of)

    @property
    def risen_at(self) -> int:
        """The first step at the peak."""
        return self.begins_at + self.warmup

    @property
    def floor(self) -> float:
        """The factor where the decay ends."""
        return self.config.min_lr_ratio or 0.0

    @property
    def falls_at(self) -> int:
        """The last step at the peak, from which on the rate falls; `max_steps` if it never does."""
        if self.config.name in ("none", "constant"):
            return self.max_steps
        if self.config.name != "wsd":
            return self.risen_at
        return max(self.risen_at, self.fall_as_asked, self.falls_from)

    @property
    def fall_as_asked(self) -> int:
        """Where the ``decay_fraction`` would begin, by itself."""
        steps = self.max_steps - self.begins_at
        return self.max_steps - max(1, round((self.config.decay_fraction or 0.0) * steps))

    @property
    def last_before_fall(self) -> int | None:
        """The step after which a checkpoint is kept: a longer run would go on from there. None of a schedule that falls
        from the first step on, or never."""
        return self.falls_at if self.config.name == "wsd" and 0 < self.falls_at < self.max_steps else None

    def factor(self, step: int) -> float:
        """For the step (0 the first) that is about to be made."""
        if self.held is not None:
            return self.held
        if step < self.risen_at:
            return self.begins_with + (1 - self.begins_with) * ((step - self.begins_at + 1) / (self.warmup + 1))
        if self.config.name in ("none", "constant"):
            return 1.0
        begin = self.falls_at
        done = min(1.0, max(0, step - begin) / max(1, self.max_steps - begin))
        if self.config.name == "cosine":
            return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * done))
        return 1 - (1 - self.floor) * done

    def to_dict(self) -> dict[str, Any]:
        """Of plain types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Schedule":
        """The inverse of `to_dict`; keys of later versions are left out. `TypeError`: it is none."""
        config = {key: values["config"].get(key) for key in _names(SchedulerConfig)}
        own = {key: values[key] for key in _names(cls) if key in values}
        return cls(**{**own, "config": SchedulerConfig(**config)})


def _names(cls: Any) -> list[str]:
    return [field.name for field in fields(cls)]


def describe_schedule(schedule: Schedule) -> str:
    """In words; what of it does not fit is said too."""
    name, warmup = schedule.config.name, schedule.warmup
    if schedule.held is not None:
        return f"{name}, held at {_percent(schedule.held)} of the peak"
    if name == "none":
        return "none: the same in every step"
    if schedule.risen_at >= schedule.max_steps:
        return f"{name}: the warmup of {warmup} steps outlasts the run, which never reaches these rates"
    parts = [f"{warmup} step{'' if warmup == 1 else 's'} of warmup"] if warmup else []
    if schedule.begins_at:
        parts.insert(0, f"again from step {schedule.begins_at} on, at {_percent(schedule.begins_with)} of the peak")
    if name != "constant":
        parts.append(f"down to {_percent(schedule.floor)} of the peak")
    if name == "wsd":
        asked, begin = schedule.fall_as_asked, schedule.falls_at
        late = f" and not {asked}, to let the warmup end" if schedule.risen_at > asked + 1 else ""
        parts[-1] += f" from step {begin} on{late}"
    return f"{name}{': ' if parts else ''}{', '.join(parts)}"


def _percent(factor: float) -> str:
    return f"{100 * factor:.3g} %"
