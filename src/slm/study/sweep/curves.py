"""The loss of a run over its steps, or over its time in training."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Literal

from slm.study.sweep.trials import Report

By = Literal["step", "time"]


def place_of(report: Report, by: By) -> float:
    """Where on the axis it stands: a step, or seconds in training."""
    return report.step if by == "step" else report.seconds


def curve_at(reports: Sequence[Report], at: float, by: By) -> float | None:
    """The loss of the report at a step; at a time between two reports what lies between their losses. None if the run
    has not come to it."""
    places = [place_of(report, by) for report in reports]
    index = bisect_left(places, at)
    if index == len(places):
        return None
    after = reports[index]
    if places[index] == at:
        return after.loss
    if by == "step" or index == 0:
        return None
    before = reports[index - 1]
    share = (at - before.seconds) / (after.seconds - before.seconds)
    return before.loss + share * (after.loss - before.loss)
