"""How long a session may train, as ``trainer.max_time`` says it. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated

from pydantic import PlainValidator

_CLOCK = re.compile(r"(\d+):(\d\d?):(\d\d?):(\d\d?)")
_FORMS = "must be DD:HH:MM:SS, in YAML in quotes (00:01:30:00), or a mapping ({hours: 1, minutes: 30})"


def seconds_of(value: object) -> float | None:
    """Seconds of a time that is written as ``DD:HH:MM:SS``, or as a mapping of what `datetime.timedelta` takes.

    Raises:
        ValueError: it is neither, or no time at all.
    """
    if value is None:
        return None
    units = value if isinstance(value, Mapping) else None
    if isinstance(value, str) and (clock := _CLOCK.fullmatch(value.strip())):
        units = dict(zip(("days", "hours", "minutes", "seconds"), map(int, clock.groups()), strict=True))
    try:
        duration = timedelta(**units).total_seconds() if units is not None else None
    except (TypeError, ValueError, OverflowError):
        duration = None
    if duration is None:
        raise ValueError(f"{_FORMS}; got {value!r}")
    if duration <= 0:
        raise ValueError(f"must be more than no time; got {value!r}")
    return duration


TimeBudget = Annotated[float | None, PlainValidator(seconds_of)]


def in_words(seconds: float) -> str:
    """``1:30:00``, ``2 days, 0:00:00``; below ten seconds with their fraction."""
    return str(timedelta(seconds=round(seconds))) if seconds >= 10 else f"{seconds:g} s"
