"""Means, intervals and tests for a handful of seeds, and what so few can show. Pure functions of numbers.

Student 1908, "The probable error of a mean"; Welch 1947, "The generalization of 'Student's' problem when several
different population variances are involved"; Holm 1979, "A simple sequentially rejective multiple test procedure".
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scipy import special

POWER = 0.8
"""How likely a difference that "can be shown" is to be shown (Cohen 1988, Statistical Power Analysis, 2.4)."""

_MOST_SEEDS = 100


@dataclass(frozen=True)
class Spread:
    """Of one group."""

    n: int
    mean: float
    sd: float  # over n - 1; nan of one value
    low: float  # t interval of the mean; nan of one value
    high: float


@dataclass(frozen=True)
class Difference:
    """Of the means of two groups, the first less the second."""

    kind: Literal["paired", "welch"]
    mean: float
    sd: tuple[float, float]  # of both groups; of pairs that of their differences, twice
    n: tuple[int, int]
    low: float  # t interval; nan where a group has one value
    high: float
    p: float  # two-sided; nan as well

    @property
    def is_known(self) -> bool:
        return not math.isnan(self.p)


# ---- what was found ----


def spread(values: Sequence[float], level: float = 0.95) -> Spread:
    """Mean and its interval at `level`."""
    n, mean, variance = len(values), _mean(values), _variance(values)
    reach = _critical(1 - level, n - 1) * math.sqrt(variance / n) if n > 1 else math.nan
    return Spread(n, mean, math.sqrt(variance), mean - reach, mean + reach)


def paired(first: Sequence[float], second: Sequence[float], level: float = 0.95) -> Difference:
    """Of values that belong together two by two: the t test of their differences."""
    apart = [a - b for a, b in zip(first, second, strict=True)]
    n, variance = len(apart), _variance(apart)
    mean, sd = _mean(apart), math.sqrt(variance)
    return Difference("paired", mean, (sd, sd), (n, n), *_t_test(mean, math.sqrt(variance / n), n - 1, level))


def welch(first: Sequence[float], second: Sequence[float], level: float = 0.95) -> Difference:
    """Of two groups by themselves, whose variances may differ."""
    variances, n = (_variance(first), _variance(second)), (len(first), len(second))
    mean = _mean(first) - _mean(second)
    error, df = _welch(variances, n)
    sd = (math.sqrt(variances[0]), math.sqrt(variances[1]))
    return Difference("welch", mean, sd, n, *_t_test(mean, error, df, level))


def holm(ps: Sequence[float]) -> list[float]:
    """Each p adjusted for there being several; a nan is none of them."""
    order = sorted((place for place, p in enumerate(ps) if not math.isnan(p)), key=lambda place: ps[place])
    adjusted, largest = list(ps), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * ps[place]))
        adjusted[place] = largest
    return adjusted


# ---- what can be found ----


def can_show(found: Difference, alpha: float = 0.05, n: tuple[int, int] | None = None) -> float:
    """The smallest true difference that a test at `alpha` shows with a probability of `POWER`, at the spread that was
    found, with as many values as there are, or `n` of them: of the noncentral t, whose far tail is left out."""
    n = found.n if n is None else n
    if min(n) < 2 or not found.is_known:
        return math.nan
    if found.kind == "paired":
        error, df = found.sd[0] / math.sqrt(n[0]), float(n[0] - 1)
    else:
        error, df = _welch((found.sd[0] ** 2, found.sd[1] ** 2), n)
    return float(special.nctdtrinc(df, 1 - POWER, _critical(alpha, df))) * error if error > 0 else 0.0


def seeds_for(found: Difference, size: float, alpha: float = 0.05) -> int | None:
    """How many values each group needs, or how many pairs, to show a difference of `size`; None for over a hundred."""
    if not found.is_known or not size > 0:
        return None
    counts = range(2, _MOST_SEEDS + 1)
    place = bisect_left(counts, True, key=lambda n: can_show(found, alpha, (n, n)) <= size)
    return counts[place] if place < len(counts) else None


# ---- parts ----


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _variance(values: Sequence[float]) -> float:
    """Over n - 1; nan of one value, exactly 0 of equal ones."""
    if len(values) < 2:
        return math.nan
    mean = values[0] if len(set(values)) == 1 else _mean(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def _welch(variances: tuple[float, float], n: tuple[int, int]) -> tuple[float, float]:
    """Standard error of the difference, and the degrees of freedom that Welch and Satterthwaite give it."""
    parts = [variance / count for variance, count in zip(variances, n, strict=True)]
    total = sum(parts)
    if not total > 0:
        return math.sqrt(total), float(sum(n) - 2)
    return math.sqrt(total), total**2 / sum(part**2 / (count - 1) for part, count in zip(parts, n, strict=True))


def _t_test(mean: float, error: float, df: float, level: float) -> tuple[float, float, float]:
    """Interval and p; of values that do not spread at all, equal or not for certain."""
    if math.isnan(error):
        return math.nan, math.nan, math.nan
    if error == 0:
        return mean, mean, float(mean == 0)
    reach = _critical(1 - level, df) * error
    return mean - reach, mean + reach, 2 * float(special.stdtr(df, -abs(mean) / error))


def _critical(alpha: float, df: float) -> float:
    """What |t| exceeds with the probability `alpha` where there is no difference."""
    return float(special.stdtrit(df, 1 - alpha / 2))
