"""Learning-rate schedules, as factors of the peak rate over the optimizer steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from slm.training.config import SchedulerConfig


def lr_factor(config: SchedulerConfig, max_steps: int, peak_lr: float) -> Callable[[int], float]:
    """step -> factor of `peak_lr`, for the step (0 the first) that is about to be made.

    All but ``none`` rise linearly over ``warmup_steps``: factor ``(step + 1) / (warmup_steps + 1)``.
    With ``t`` the share of the steps after the warmup that is done, and ``f = min_lr / peak_lr``:

    - ``cosine``: ``f + (1 - f) * (1 + cos(pi t)) / 2`` (Loshchilov and Hutter 2017, eq. 5)
    - ``linear``: ``1 - (1 - f) * t``
    - ``wsd``: 1, then linear down to ``f`` over the last ``decay_fraction`` of all steps
      (warmup-stable-decay, Hu et al. 2024, section 4.2)
    - ``constant``: 1
    - ``none``: 1 from the first step on, no warmup
    """
    return partial(_factor, config, max_steps, config.min_lr / peak_lr)


def _factor(config: SchedulerConfig, max_steps: int, floor: float, step: int) -> float:
    if config.name == "none":
        return 1.0
    if step < config.warmup_steps:
        return (step + 1) / (config.warmup_steps + 1)
    if config.name == "constant":
        return 1.0
    done = min(1.0, (step - config.warmup_steps) / max(1, max_steps - config.warmup_steps))
    if config.name == "cosine":
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))
    if config.name == "linear":
        return 1 - (1 - floor) * done
    decay_steps = max(1, round(config.decay_fraction * max_steps))
    into_decay = max(0.0, min(1.0, (step - (max_steps - decay_steps)) / decay_steps))
    return 1 - (1 - floor) * into_decay
