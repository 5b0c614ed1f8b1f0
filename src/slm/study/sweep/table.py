"""A study as one table: ``sweep.csv``, a row a trial."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slm.files.csv_table import write_rows
from slm.study.recorded_settings import key_values
from slm.study.run_record import TABLE_FILE
from slm.study.sweep.trials import Trial


def write_table(folder: Path, trials: Sequence[Trial], fixed: Sequence[str]) -> None:
    """What each was given, its state, its figures, and what it failed of. `fixed` is what all were given."""
    given = key_values(fixed)
    if rows := [_row(trial, given) for trial in trials]:
        write_rows(folder / TABLE_FILE, rows)


def _row(trial: Trial, given: Mapping[str, str]) -> dict[str, Any]:
    varied = {key.lstrip("+"): value for key, value in trial.values.items()}
    outcome = trial.outcome
    figures = outcome.figures if outcome else {}
    error = {"error": outcome.error} if outcome and outcome.error else {}
    given = {key: value for key, value in given.items() if key not in varied}
    return {"run": trial.folder, **varied, **given, "state": trial.state, **figures, **error}
