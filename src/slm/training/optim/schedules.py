"""Learning-rate schedules, as factors of the peak rate over the optimizer steps."""

import math
from collections.abc import Callable
from functools import partial

from slm.training.config import SchedulerConfig


def lr_factor(config: SchedulerConfig, max_steps: int) -> Callable[[int], float]:
    """step -> factor of the peak rate, for the step (0 the first) that is about to be made. Every parameter group's
    own peak is multiplied by it.

    All but ``none`` rise linearly over the warmup: factor ``(step + 1) / (warmup + 1)``.
    With ``t`` the share of the steps after the warmup that is done, and ``f = min_lr_ratio``:

    - ``cosine``: ``f + (1 - f) * (1 + cos(pi t)) / 2`` (Loshchilov and Hutter 2017, eq. 5)
    - ``linear``: ``1 - (1 - f) * t``
    - ``wsd``: 1, then linear down to ``f`` over the last ``decay_fraction`` of all steps, or over what the warmup
      leaves of them (warmup-stable-decay, Hu et al. 2024, section 4.2)
    - ``constant``: 1
    - ``none``: 1 from the first step on, no warmup
    """
    return partial(_factor, config, max_steps, config.warmup(max_steps))


def _factor(config: SchedulerConfig, max_steps: int, warmup: int, step: int) -> float:
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if config.name in ("none", "constant"):
        return 1.0
    floor = config.min_lr_ratio or 0.0
    begin = warmup if config.name != "wsd" else max(warmup, _decay_begins(config, max_steps))
    done = min(1.0, max(0, step - begin) / max(1, max_steps - begin))
    if config.name == "cosine":
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))
    return 1 - (1 - floor) * done


def _decay_begins(config: SchedulerConfig, max_steps: int) -> int:
    return max_steps - max(1, round((config.decay_fraction or 0.0) * max_steps))


def describe_schedule(config: SchedulerConfig, max_steps: int) -> str:
    """In words, for a run of `max_steps`; what of it does not fit is said too."""
    warmup = config.warmup(max_steps)
    if config.name == "none":
        return "none: the same in every step"
    if warmup >= max_steps:
        return f"{config.name}: the warmup of {warmup} steps outlasts the run, which never reaches these rates"
    parts = [f"{warmup} step{'' if warmup == 1 else 's'} of warmup"] if warmup else []
    if config.name != "constant":
        parts.append(f"down to {100 * (config.min_lr_ratio or 0.0):.3g} % of the peak")
    if config.name == "wsd":
        begin = _decay_begins(config, max_steps)
        late = f" and not {begin}, to let the warmup end" if warmup > begin + 1 else ""
        parts[-1] += f" from step {max(warmup, begin)} on{late}"
    return f"{config.name}{': ' if parts else ''}{', '.join(parts)}"
