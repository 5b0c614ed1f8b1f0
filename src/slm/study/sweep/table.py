"""A study as one table: ``sweep.csv``, a row a trial."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slm.files.writing import new_file
from slm.study.sweep.trials import Trial

TABLE_FILE = "sweep.csv"


def write_table(folder: Path, trials: Sequence[Trial], fixed: Sequence[str]) -> None:
    """What each was given, its state, its figures, and what it failed of. `fixed` is what all were given."""
    given = dict(setting.lstrip("+").split("=", 1) for setting in fixed if "=" in setting)
    rows = [_row(trial, given) for trial in trials]
    if not rows:
        return
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)))
    writer.writeheader()
    writer.writerows(rows)
    with new_file(folder / TABLE_FILE) as out:
        out.write(text.getvalue().encode())


def _row(trial: Trial, given: Mapping[str, str]) -> dict[str, Any]:
    varied = {key.lstrip("+"): value for key, value in trial.values.items()}
    outcome = trial.outcome
    figures = outcome.figures if outcome else {}
    error = {"error": outcome.error} if outcome and outcome.error else {}
    given = {key: value for key, value in given.items() if key not in varied}
    return {"run": trial.folder, **varied, **given, "state": trial.state, **figures, **error}
