"""What a report says of runs, as plain values: the page shows it, JSON is it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slm.errors import UserError
from slm.study.compare import Comparison, compare
from slm.study.grouping import read_at
from slm.study.ladder.fits import LawFit, Rung, fit_laws, is_ladder, rungs_of
from slm.study.names import in_words, short_names, telling, value_of
from slm.study.report.again import command_of, command_of_study
from slm.study.report.environment import Environment, environment_of
from slm.study.report.samples import last_sample
from slm.study.run_record import RunRecord, runs_in
from slm.study.run_table import chosen
from slm.training.run.folder import DIRECTORY

_MOST_SAMPLES = 24


@dataclass(frozen=True)
class Row:
    """A run of the report. Where nothing is known figures are nan, and texts None."""

    number: int  # which is its colour
    run: RunRecord = field(repr=False)
    name: str  # ``lr=0.001 seed=1``, or its folder's
    settings: dict[str, Any]  # short name -> value, of those that differ
    tokens: float
    seconds: float  # of training
    flops: float
    command: str  # which makes it again, where it is typed in `directory`
    directory: str | None

    @property
    def loss(self) -> float:
        return self.run.best_val_loss


@dataclass(frozen=True)
class Report:
    """All of a report; the best run first, and those without a loss last."""

    title: str
    made: str
    rows: list[Row]
    studies: list[str]  # command lines that make a whole sweep again
    common: list[str]  # overrides that all runs were given
    keys: dict[str, str]  # dotted key -> short name, of the settings that differ
    environment: Environment
    comparison: Comparison | None
    why_no_comparison: str
    rungs: list[Rung]  # of a ladder
    laws: list[LawFit]
    samples: dict[int, str]  # number of a run -> what it wrote last

    @property
    def states(self) -> str:
        counts: dict[str, int] = {}
        for row in self.rows:
            counts[row.run.state] = counts.get(row.run.state, 0) + 1
        return ", ".join(f"{count} {state}" for state, count in counts.items())

    def total(self, name: str) -> float:
        """Of all runs that know it: ``seconds``, ``tokens``, ``flops``; nan if none does."""
        known = [value for row in self.rows if math.isfinite(value := getattr(row, name))]
        return math.fsum(known) if known else math.nan


def gather(places: Sequence[Path], where: str | None = None, title: str | None = None) -> Report:
    """The report of runs, those that meet the condition `where`, each of `places` being a run's folder or one that
    holds some. `UserError`: there is none."""
    runs = _found(places, where)
    keys = short_names(telling(runs, with_seed=True))
    rows = [_row(number, run, keys) for number, run in enumerate(runs)]
    comparison, why = _compared(runs)
    rungs = rungs_of(runs)
    laws = fit_laws(rungs) if is_ladder(rungs) else []
    samples = {row.number: text for row in rows[:_MOST_SAMPLES] if (text := last_sample(row.run.folder))}
    return Report(
        title or _title(places, rows),
        time.strftime("%Y-%m-%d %H:%M"),
        rows,
        [command for place in places if (command := command_of_study(place))],
        _common(runs),
        keys,
        environment_of(runs),
        comparison,
        why,
        rungs if laws else [],
        laws,
        samples,
    )


def _found(places: Sequence[Path], where: str | None) -> list[RunRecord]:
    found = runs_in(places)
    runs = chosen(found, where)
    if not runs:
        met = f" (of {len(found)}) meets where={where}; name another condition" if found else ""
        raise UserError(f"no run in {', '.join(map(str, places))}{met or '; give folders that hold some'}")
    return sorted(runs, key=_rank)


def _rank(run: RunRecord) -> tuple[float, str]:
    loss = run.best_val_loss
    return (loss if math.isfinite(loss) else math.inf, str(run.folder))


def _row(number: int, run: RunRecord, keys: Mapping[str, str]) -> Row:
    settings = {short: value_of(run, key) for key, short in keys.items()}
    tokens, seconds = (next(reversed(column), math.nan) for column in (run.metrics.tokens, run.metrics.seconds))
    given = {name: value for name, value in settings.items() if value is not None}
    directory = run.record.get(DIRECTORY)
    return Row(
        number,
        run,
        in_words(given) or run.folder.name,
        settings,
        tokens,
        seconds,
        run.flops_per_token * tokens,
        command_of(run),
        directory if isinstance(directory, str) else None,
    )


def _common(runs: Sequence[RunRecord]) -> list[str]:
    """In the order in which they were typed."""
    return [one for one in runs[0].overrides if all(one in run.overrides for run in runs[1:])]


def _compared(runs: Sequence[RunRecord]) -> tuple[Comparison | None, str]:
    if len(runs) < 2:
        return None, "one run: there is nothing to compare it with"
    try:
        return compare(read_at(runs, "steps")), ""
    except UserError as error:
        return None, str(error)


def _title(places: Sequence[Path], rows: Sequence[Row]) -> str:
    if len(places) == 1:
        return str(places[0])
    return f"{len(rows)} runs"
