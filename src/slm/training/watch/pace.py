"""How long a run will still take, from what its steps and validations have taken."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pace:
    """Means of this session: of a step, without the first one, which compiles and fills caches; of a validation.

    A mean over the last half minute, as bars have it, is off tenfold where a validation is most of that.

    Args:
        val_every: period of validation in optimizer steps.
        clock: seconds.
    """

    def __init__(self, val_every: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self.val_every = val_every
        self._clock = clock
        self._step = 0
        self._since: float | None = None  # the end of the first step, later of the last one or of its validation
        self._steps: list[float] = [0, 0.0]  # how many, and their seconds
        self._validations: list[float] = [0, 0.0]
        self._validating_since = 0.0

    def step(self, step: int) -> None:
        """Note that `step` is made."""
        now = self._clock()
        if self._since is not None:
            _add(self._steps, now - self._since)
        self._step, self._since = step, now

    def validation_begins(self) -> None:
        """Note it."""
        self._validating_since = self._clock()

    def validation_ends(self) -> None:
        """Note it; it is no part of a step."""
        took = self._clock() - self._validating_since
        _add(self._validations, took)
        if self._since is not None:
            self._since += took

    def left(self, last_step: int) -> float | None:
        """Seconds until `last_step` is validated; None while there is no step to tell by."""
        if self._since is None or not self._steps[0]:
            return None
        steps = last_step - self._step
        validations = -(-last_step // self.val_every) - self._step // self.val_every
        still = steps * _mean(self._steps) + validations * _mean(self._validations)
        return max(0.0, still - (self._clock() - self._since))


def _add(sums: list[float], seconds: float) -> None:
    sums[0] += 1
    sums[1] += seconds


def _mean(sums: list[float]) -> float:
    return sums[1] / sums[0] if sums[0] else 0.0
