"""slm-compare: which setting is better, and whether that can be told."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Gt, Lt

from slm.cli.app import entry_point
from slm.cli.command import Command
from slm.cli.positional import words_as
from slm.errors import UserError
from slm.notices import notice
from slm.schema import FORBID_EXTRA, Flag, PositiveFloat, Text, checked
from slm.study.curves import Axis, Measure

if TYPE_CHECKING:
    from slm.study.run_record import RunRecord


@dataclass(frozen=True)
class _Settings:
    __pydantic_config__ = FORBID_EXTRA
    runs: Text | list[Text]
    study: Text | None
    where: Text | None
    at: Axis
    by: Measure
    until: PositiveFloat | None
    baseline: Text | None
    level: Annotated[PositiveFloat, Gt(0.5), Lt(1)]
    plot: Text | None
    json: Flag

    @property
    def folders(self) -> list[Path]:
        named = [self.runs] if isinstance(self.runs, str) else self.runs
        return [Path(folder).expanduser() for folder in (named if self.study is None else [self.study])]


def compare(_: dict[str, Any], settings: _Settings) -> None:
    """The command's task."""
    from slm.study.compare import compare as hold_against_each_other
    from slm.study.comparison_plot import check_ending, save
    from slm.study.comparison_table import as_json, lines
    from slm.study.grouping import read_at

    plot = None if settings.plot is None else Path(settings.plot).expanduser()
    if plot is not None:
        check_ending(plot)
    readings = read_at(_runs(settings), settings.at, settings.until, settings.by)
    comparison = hold_against_each_other(readings, settings.level, settings.baseline)
    if plot is not None:
        save(comparison, plot)
        notice(f"plot {plot}")
    if settings.json:
        print(json.dumps(as_json(comparison), allow_nan=False))
    else:
        print("\n".join(lines(comparison)))


def _runs(settings: _Settings) -> list[RunRecord]:
    from slm.study.run_record import runs_below
    from slm.study.run_table import chosen

    found = {run.folder.resolve(): run for folder in settings.folders for run in runs_below(folder)}
    return chosen(list(found.values()), settings.where)


def _checked(values: dict[str, Any]) -> _Settings:
    settings = checked(_Settings, values)
    if settings.study is not None and settings.runs:
        raise UserError("runs and study are both given; name run folders, or study=PATH")
    if not settings.folders:
        raise UserError("nothing to compare: name run folders or folders of runs, or study=PATH")
    return settings


_PATHS = ("runs", "study", "plot")
main = entry_point(
    Command("compare", compare, _checked, words_as("runs"), literal=("where", "baseline"), paths=_PATHS), __name__
)
