"""What ``trainer.save_at`` may be: the steps, or the words read, at which a run's state stays for good."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

MILLION = 1_000_000
CHALLENGE_POINTS = tuple(
    MILLION * millions for millions in (*range(1, 10), *range(10, 100, 10), *range(100, 1001, 100))
)
"""Words read at which the BabyLM challenge wants a model's state (submission requirements of its pipeline, 2026)."""

_NEARLY = 0.95
_UNITS = {"": 1, "k": 1000, "M": MILLION}
_WORDS = re.compile(r"(\d+)([kM]?)")
_FORMS = (
    "must be log2 (steps 1, 2, 4, 8, …), a list of steps ([10, 100]), words (1M to 10M, 20M to 100M, 200M to 1000M) or "
    "words of your own ({words: [250k, 1M]})"
)


@dataclass(frozen=True)
class WordPoints:
    """Counts of words, ascending, at which the state of a run is kept: of the first step that has read so many."""

    points: tuple[int, ...]

    def reached(self, before: int, after: int, is_end: bool = False) -> list[int]:
        """Those that a step reached which read on from `before` to `after` words. A run that `is_end`s within a
        twentieth of its next one is taken to be there: ten passes over 10 M words are seldom 100 M to the word."""
        found = [point for point in self.points if before < point <= after]
        following = [point for point in self.points if point > after]
        nearly = following[:1] if is_end and following and after >= _NEARLY * following[0] else []
        return [*found, *nearly]


SavePoints = Literal["log2"] | tuple[int, ...] | WordPoints | None


def save_points_of(value: object) -> SavePoints:
    """The points that a setting names; `ValueError` for what names none."""
    if value is None or value == "log2":
        return value
    if value == "words":
        return WordPoints(CHALLENGE_POINTS)
    try:
        if isinstance(value, dict) and value.keys() == {"words"}:
            return WordPoints(tuple(sorted({*map(_words, _several(value["words"]))})))
        return tuple(map(_step, _several(value)))
    except ValueError:
        raise ValueError(f"{_FORMS}; got {value!r}") from None


def in_short(words: int) -> str:
    """``250k``, ``1M``, ``1234``: what `save_points_of` reads back, and names of files and branches have."""
    unit = next(unit for unit in ("M", "k", "") if words % _UNITS[unit] == 0)
    return f"{words // _UNITS[unit]}{unit}"


def words_in(short: str) -> int | None:
    """The inverse of `in_short`; None for what it does not write."""
    found = _WORDS.fullmatch(short)
    return int(found[1]) * _UNITS[found[2]] if found else None


def _several(value: Any) -> Iterable[Any]:
    if not isinstance(value, list | tuple) or not value:
        raise ValueError
    return value


def _step(value: object) -> int:
    if type(value) is not int or value <= 0:
        raise ValueError
    return value


def _words(value: object) -> int:
    words = words_in(value) if isinstance(value, str) else value
    return _step(words)
