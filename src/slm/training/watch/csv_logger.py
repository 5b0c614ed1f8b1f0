"""``metrics.csv``: always there, appended to, and continued by a resumed run."""

import csv
import io
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning_fabric.utilities.rank_zero import rank_zero_only
from pytorch_lightning.loggers.logger import Logger

from slm.files.writing import new_file
from slm.notices import notice
from slm.training.run.metrics_table import STEP, Row, parse_metrics, read_metrics


class CsvLogger(Logger):
    """One row a step; metrics logged for the same step share its row.

    Every row is on disk as soon as it is logged. A new column, or a row of an earlier step, makes the file anew. Rows
    that cannot be written (a full disk) wait in memory and are written with the first one that can. Of an older table
    rows after step `keep_until` are dropped, which are made again; None starts a new one.
    """

    name = "csv"
    version = ""

    def __init__(self, file: Path, keep_until: int | None = None) -> None:
        super().__init__()
        self.file = file
        self._keep_until = keep_until
        self._columns: list[str] = [STEP]
        self._open_rows: dict[int, Row] = {}  # the last one, which may still be completed; after a failure all since
        self._settled: int | None = None  # bytes of the file before those; None where what is there is not ours yet
        self._end: int | None = None  # bytes of the file with them
        self._is_stale = True  # there is more to write than rows at the end
        self._failing = False

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: they are in ``config.yaml``."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Write the row, or complete that of the same step; without a step it is the last one's."""
        latest = max(self._open_rows, default=0)
        step = latest if step is None else step
        values = {**{name: _written(value) for name, value in metrics.items()}, STEP: str(step)}
        new = [name for name in values if name not in self._columns]
        self._columns += new
        self._is_stale |= bool(new) or (step < latest and step not in self._open_rows)
        if step > latest and not self._failing and self.file.is_file():  # the rows until now are complete
            self._settled, self._open_rows = self._end, {}
        self._open_rows[step] = {**self._open_rows.get(step, {}), **values}
        self._write()

    @rank_zero_only
    def go_back(self, step: int) -> None:
        """Drop the rows after `step`, which are made again."""
        self._settled, self._is_stale, self._keep_until = None, True, step
        self._open_rows = {kept: row for kept, row in self._open_rows.items() if kept <= step}
        self._write()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """A last attempt at what waits; what is lost is said."""
        if self._failing:
            self._write()
        if self._failing:
            notice(f"{self.file}: the rows of steps {min(self._open_rows)} to {max(self._open_rows)} are lost")

    def _write(self) -> None:
        if self._settled is not None and not self.file.is_file():
            notice(f"{self.file} is gone; it begins anew with step {min(self._open_rows, default=0)}")
            self._settled, self._is_stale = None, True
        try:
            if self._is_stale:
                self._make_anew()
            else:
                self._append()
        except OSError as error:
            if not self._failing:
                notice(f"{self.file} cannot be written ({error.strerror}); its rows wait in memory until it can")
            self._failing = True
        else:
            if self._failing:
                notice(f"{self.file} is written again; no row was lost")
            self._failing = False

    def _append(self) -> None:
        """Write over what a failure, or the open row before it was completed, left behind the settled ones."""
        assert self._settled is not None
        text = _lines((self._open_rows[step] for step in sorted(self._open_rows)), self._columns)
        with self.file.open("r+b") as out:
            out.seek(self._settled)
            out.truncate()
            out.write(text)
        self._end = self._settled + len(text)

    def _make_anew(self) -> None:
        """A new file of the rows that stay and the open ones, by steps. Nothing is written before the first
        metric, so that a run that never starts leaves no table."""
        rows = {int(row[STEP]): row for row in self._rows_that_stay()}
        for step, row in self._open_rows.items():  # a checkpoint may be of before the validation that completes its row
            rows[step] = {**rows.get(step, {}), **row}
        ordered = sorted(rows.items())
        header = _lines([{name: name for name in self._columns}], self._columns)
        settled = header + _lines((row for _, row in ordered[:-1]), self._columns)
        last = _lines((row for _, row in ordered[-1:]), self._columns)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with new_file(self.file) as out:
            out.write(settled + last)
        self._settled, self._end = len(settled), len(settled + last)
        self._open_rows, self._is_stale = dict(ordered[-1:]), False

    def _rows_that_stay(self) -> list[Row]:
        if self._settled is not None:
            return parse_metrics(self.file.read_bytes()[: self._settled])[1]
        if self._keep_until is None or not self.file.is_file():
            return []
        columns, rows = parse_metrics(self.file.read_bytes().rpartition(b"\n")[0])  # a kill may have cut the last row
        self._columns = [*columns, *(name for name in self._columns if name not in columns)]
        return [row for row in rows if int(row[STEP]) <= self._keep_until]


def _written(value: Any) -> str:
    """Counts as the whole numbers that they are."""
    return str(value) if isinstance(value, int) else repr(float(value))


def _lines(rows: Iterable[Row], columns: list[str]) -> bytes:
    out = io.StringIO(newline="")
    csv.DictWriter(out, columns, lineterminator="\n").writerows(rows)
    return out.getvalue().encode()


def say_what_is_made_again(table: Path, resumed_step: int) -> None:
    """Rows of ``metrics.csv`` that are of after the checkpoint go."""
    steps = [int(row[STEP]) for row in read_metrics(table)[1] if row[STEP].isdecimal()] if table.is_file() else []
    if later := [step for step in steps if step > resumed_step]:
        rows = f"{len(later)} row{'s' * (len(later) > 1)}"
        notice(f"{table} goes to step {max(later)}: {rows} of after step {resumed_step} are dropped and made again")
