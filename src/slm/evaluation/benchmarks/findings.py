"""What a benchmark finds, and with how much certainty."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from slm.evaluation.reader import Reader

_Z = 1.959963984540054  # of a normal distribution 95 % lie within so many standard deviations


@dataclass(frozen=True)
class Findings:
    """Of one benchmark."""

    figures: Mapping[str, float]  # what is logged and compared, the first one first
    about: Mapping[str, Any] = field(default_factory=dict)  # how it was done; what a person or a program reads beside
    rows: Sequence[Mapping[str, Any]] = ()  # one an item, written to a file
    files: Mapping[str, Any] = field(default_factory=dict)  # JSON by its place in the folder of results


class Benchmark(Protocol):
    """Puts a model to a task."""

    def __call__(self, reader: Reader) -> Findings:
        """Raise `UserError` where this model cannot be put to it."""


def wilson(right: float, n: int) -> tuple[float, float]:
    """The interval that covers the true share of right answers 95 times in 100, of `right` out of `n` (Wilson 1927)."""
    if n == 0:
        return math.nan, math.nan
    share, z2 = right / n, _Z * _Z
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def mean(values: Sequence[float]) -> float:
    """nan of none."""
    return math.fsum(values) / len(values) if values else math.nan


def standard_error(values: Sequence[float]) -> float:
    """Of their mean; nan of fewer than two."""
    if len(values) < 2:
        return math.nan
    middle = mean(values)
    return math.sqrt(math.fsum((value - middle) ** 2 for value in values) / (len(values) - 1) / len(values))
