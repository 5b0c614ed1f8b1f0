"""slm-compare: which setting is better, and whether that can be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Gt, Lt

from slm.cli.app import entry_point
from slm.cli.command import Command
from slm.cli.named_runs import NamedRuns
from slm.cli.positional import words_as
from slm.cli.result import Result
from slm.notices import notice
from slm.schema import PositiveFloat, Text, checked
from slm.study.curves import Axis, Measure


@dataclass(frozen=True)
class _Settings(NamedRuns):
    at: Axis
    by: Measure
    until: PositiveFloat | None
    baseline: Text | None
    level: Annotated[PositiveFloat, Gt(0.5), Lt(1)]
    plot: Text | None


def compare(values: dict[str, Any], settings: _Settings) -> Result:
    """The command's task."""
    from slm.study.compare import compare as hold_against_each_other
    from slm.study.comparison_plot import check_ending, save
    from slm.study.comparison_table import as_json, lines
    from slm.study.grouping import read_at
    from slm.study.run_record import runs_in
    from slm.study.run_table import chosen

    plot = None if settings.plot is None else Path(settings.plot).expanduser()
    if plot is not None:
        check_ending(plot)
    runs = chosen(runs_in(settings.folders), settings.where)
    readings = read_at(runs, settings.at, settings.until, settings.by)
    comparison = hold_against_each_other(readings, settings.level, settings.baseline)
    if plot is not None:
        save(comparison, plot)
        notice(f"plot {plot}")
    return Result(as_json(comparison)) if values["json"] else Result({}, "\n".join(lines(comparison)))


def _checked(values: dict[str, Any]) -> _Settings:
    settings = checked(_Settings, values)
    settings.check("compare")
    return settings


_TEXTS, _PATHS = ("where", "baseline"), ("runs", "study", "plot")
main = entry_point(Command("compare", compare, _checked, words_as("runs"), literal=_TEXTS, paths=_PATHS), __name__)
