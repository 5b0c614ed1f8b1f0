"""What a sweep varies: values and intervals, and seeds, which are repeats of one setting."""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Point = dict[str, str]  # key -> value, as one types them; without the seed


@dataclass(frozen=True)
class Choice:
    """One of several values; numbers in a range are values, too."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Interval:
    """A number from `low` to `high`, both included."""

    key: str
    low: float
    high: float
    is_log: bool = False
    is_int: bool = False

    def typed(self, number: float) -> str:
        """`number` with six digits, so that a command line, a folder and a record all have the same."""
        if self.is_int:
            return str(int(number))
        rounded = float(f"{number:.6g}")
        return repr(min(max(rounded, self.low), self.high))


Dimension = Choice | Interval


@dataclass(frozen=True)
class Space:
    """All that varies: `dimensions` make settings, `seeds` their repeats (one of None where the seed is not varied)."""

    dimensions: tuple[Dimension, ...]
    seeds: tuple[str | None, ...] = (None,)

    @property
    def keys(self) -> list[str]:
        """What varies, the seed last."""
        return [dimension.key for dimension in self.dimensions] + ([] if self.seeds == (None,) else ["seed"])

    @property
    def size(self) -> float:
        """How many settings there are; infinite with an interval of numbers with fractions."""
        return math.prod(map(_size, self.dimensions))

    def grid(self) -> Iterator[Point]:
        """Every combination of the values, the last key varying fastest."""
        values = [[(choice.key, value) for value in _values(choice)] for choice in self.dimensions]
        return (dict(point) for point in itertools.product(*values))

    def as_json(self) -> dict[str, Any]:
        """As plain types, which `space_of` reads."""
        return {"dimensions": [vars(dimension) for dimension in self.dimensions], "seeds": list(self.seeds)}


def space_of(content: Mapping[str, Any]) -> Space:
    """The space that `Space.as_json` wrote."""
    dimensions = [
        Choice(one["key"], tuple(one["values"])) if "values" in one else Interval(**one)
        for one in content["dimensions"]
    ]
    return Space(tuple(dimensions), tuple(content["seeds"]))


def _values(dimension: Dimension) -> tuple[str, ...]:
    if isinstance(dimension, Interval):
        raise ValueError(f"{dimension.key} is an interval, of which a grid cannot take every value")
    return dimension.values


def _size(dimension: Dimension) -> float:
    if isinstance(dimension, Choice):
        return len(dimension.values)
    return dimension.high - dimension.low + 1 if dimension.is_int else math.inf
