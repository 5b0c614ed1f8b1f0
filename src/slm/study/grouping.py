"""Runs that differ in their seed alone are repeats of one setting: a group."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from slm.errors import UserError, first_few
from slm.study.curves import Axis, Measure
from slm.study.names import in_words, short_names, telling, value_of
from slm.study.run_record import RunRecord, differing

ALL = "all runs"


@dataclass(frozen=True)
class Reading:
    """What a run came to where runs are compared."""

    run: RunRecord = field(repr=False)
    value: float  # what its validation says there
    between: tuple[float, float] | None  # the two validations that it lies between; None: it was made just there


@dataclass(frozen=True)
class Group:
    """Runs of one setting."""

    name: str  # ``lr=0.001 dim=64``
    settings: dict[str, Any]  # those that tell the groups apart
    readings: list[Reading] = field(repr=False)

    @property
    def by_seed(self) -> dict[int | None, float]:
        """Seed -> value. A seed that was run twice says nothing new: the mean of its runs counts as one."""
        values: dict[int | None, list[float]] = {}
        for reading in self.readings:
            values.setdefault(reading.run.seed, []).append(reading.value)
        return {seed: math.fsum(found) / len(found) for seed, found in values.items()}

    @property
    def values(self) -> list[float]:
        return list(self.by_seed.values())

    @property
    def mean(self) -> float:
        return math.fsum(self.values) / len(self.values)


@dataclass(frozen=True)
class Readings:
    """Runs, read at one place of an axis."""

    at: Axis
    place: float  # steps, tokens, seconds or floating-point operations
    groups: list[Group]  # the lowest mean first
    left_out: dict[str, str]  # run folder -> why
    by: Measure = "loss"
    cautions: list[str] = field(default_factory=list)  # why the values may not compare

    @property
    def n_interpolated(self) -> int:
        return sum(reading.between is not None for group in self.groups for reading in group.readings)


def read_at(runs: Sequence[RunRecord], at: Axis, place: float | None = None, by: Measure = "loss") -> Readings:
    """What the validation of each run says at the same count of steps, tokens, seconds or floating-point operations, on
    a straight line between the two validations around it.

    The place is the furthest that all runs have come to that came to their end (of none that did, all runs). What was
    not validated so far, or only behind it, is left out. `UserError` if less than two are left.
    """
    curves = [run.metrics.points(f"val/{by}", at, run.flops_per_token) for run in runs]
    if place is None:
        whole = [points for run, points in zip(runs, curves, strict=True) if points and run.state == "done"]
        place = min((points[-1][0] for points in whole or curves if points), default=math.nan)
    read, left_out = [], {}
    for run, points in zip(runs, curves, strict=True):
        if (found := _value_at(points, place)) is None:
            left_out[str(run.folder)] = _why_not(run, points, at, place)
        else:
            read.append(Reading(run, *found))
    if len(read) < 2:
        raise UserError(_too_few(len(read), left_out, at, place))
    return Readings(at, place, _grouped(read), left_out, by, _cautions([reading.run for reading in read], by))


def _cautions(runs: Sequence[RunRecord], by: Measure) -> list[str]:
    if any(key.startswith("tokenizer.") for key in differing(runs)):
        if by == "bits_per_byte":
            return []
        return [f"the tokenizers differ, and {by} is of their tokens: by=bits_per_byte compares what they come to"]
    data = {run.record.get("data_fingerprint") for run in runs} - {None}
    return [f"the runs have read {len(data)} different data sets, and were validated on them"] if len(data) > 1 else []


def _too_few(n_left: int, left_out: Mapping[str, str], at: Axis, place: float) -> str:
    reasons = first_few([f"{run}: {why}" for run, why in left_out.items()], "; ")
    where = "" if math.isnan(place) else f" at {in_units(place, at)} (until=… reads elsewhere)"
    of = f"of {n_left + len(left_out)} runs {n_left} {'is' if n_left == 1 else 'are'} left"
    return f"at least two runs with a validation are compared; {of}{where}" + (f": {reasons}" if reasons else "")


def in_units(place: float, at: Axis) -> str:
    """``step 500``, ``1.2M tokens``."""
    if at == "steps":
        return f"step {place:,.0f}"
    if at == "time":
        return f"{place:,.1f} s of training"
    return f"{place:,.0f} tokens" if at == "tokens" else f"{place:.3g} FLOPs"


def _value_at(points: Sequence[tuple[float, float]], place: float) -> tuple[float, tuple[float, float] | None] | None:
    """The value there, and between which two it lies; None outside of what was validated."""
    for place_before, (x, value) in enumerate(points, start=-1):
        if math.isclose(x, place):
            return value, None
        if x > place:
            if place_before < 0:
                return None
            left, low = points[place_before]
            return low + (value - low) * (place - left) / (x - left), (left, x)
    return None


def _why_not(run: RunRecord, points: Sequence[tuple[float, float]], at: Axis, place: float) -> str:
    if run.error:
        return f"failed: {run.error}"
    if at == "flops" and math.isnan(run.flops_per_token):
        return "what a token costs was not noted (a run of an earlier version)"
    if not points:
        return f"{run.state}, no validation"
    first, last = points[0][0], points[-1][0]
    if last < place:
        return f"{run.state}, validated to {in_units(last, at)} alone"
    return f"first validated at {in_units(first, at)}"


def _grouped(readings: Sequence[Reading]) -> list[Group]:
    keys = telling([reading.run for reading in readings])
    names = short_names(keys)
    found: dict[str, list[Reading]] = {}
    for reading in readings:
        values = {names[key]: value_of(reading.run, key) for key in keys}
        found.setdefault(in_words(values) or ALL, []).append(reading)
    groups = [
        Group(name, {key: value_of(members[0].run, key) for key in keys}, members) for name, members in found.items()
    ]
    return sorted(groups, key=lambda group: group.mean)
