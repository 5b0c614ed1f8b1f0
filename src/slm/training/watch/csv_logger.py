"""``metrics.csv``: always there, appended to, and continued by a resumed run."""

from __future__ import annotations

import csv
import io
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning_fabric.utilities.rank_zero import rank_zero_only
from pytorch_lightning.loggers.logger import Logger

from slm.notices import notice

STEP = "step"

Row = dict[str, str]


class CsvLogger(Logger):
    """One row a step; metrics logged for the same step share its row.

    Every row is on disk as soon as it is logged. A new column widens the file once. Rows that cannot be written (a full
    disk) wait in memory and are written with the first one that can.

    Args:
        file: the table.
        keep_until: of an older table, rows after this step are dropped (the resumed run makes
            them again); None starts a new table.
    """

    def __init__(self, file: Path, keep_until: int | None = None) -> None:
        super().__init__()
        self.file = file
        self._columns: list[str] = [STEP]
        self._settled = 0  # bytes of the file before the last row, which may still be completed
        self._last = b""  # that row, if it is on disk, whole
        self._rows: list[Row] = []  # the last row, and after a failure all since then
        self._columns_on_disk = 0
        self._keep_until = keep_until
        self._is_open = False
        self._is_late = False  # a row that waits belongs before one that is on disk
        self._failing = False

    @property
    def name(self) -> str:
        """Of the logger."""
        return "csv"

    @property
    def version(self) -> str:
        """There is one table a run."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: they are in ``config.yaml``."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Write the row, or complete that of the same step; without a step it is the last one's."""
        latest = int(self._rows[-1][STEP]) if self._rows else 0
        step = latest if step is None else step
        values = {**{name: _written(value) for name, value in metrics.items()}, STEP: str(step)}
        row = next((row for row in self._rows if row[STEP] == values[STEP]), None)
        if row is None:
            self._is_late |= step < latest
            self._rows = sorted([*self._rows, values], key=_step)
        else:
            row.update(values)
        self._columns += [name for name in values if name not in self._columns]
        self._write()

    @rank_zero_only
    def go_back(self, step: int) -> None:
        """Drop the rows after `step`, which are made again."""
        self._is_open, self._keep_until = False, step
        self._rows = [row for row in self._rows if int(row[STEP]) <= step]
        self._write()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """A last attempt at what waits; what is lost is said."""
        if self._failing:
            self._write()
        if self._failing:
            on_disk = _lines(self._rows[:1], self._columns) == self._last
            lost = self._rows[int(on_disk) :]
            notice(f"{self.file}: the rows of steps {lost[0][STEP]} to {lost[-1][STEP]} are lost")

    def _write(self) -> None:
        if self._is_open and not self.file.is_file():
            notice(f"{self.file} is gone; it begins anew with step {self._rows[0][STEP] if self._rows else 0}")
            self._is_open = False
        try:
            if not self._is_open:
                self._open()
            elif self._is_late or len(self._columns) != self._columns_on_disk:
                self._widen()
            else:
                self._append()
        except OSError as error:
            if not self._failing:
                notice(f"{self.file} cannot be written ({error.strerror}); its rows wait in memory until it can")
            self._failing = True
            return
        if self._failing:
            notice(f"{self.file} is written again; no row was lost")
        self._failing = False
        self._rows = self._rows[-1:]

    def _open(self) -> None:
        """Nothing is written before the first metric, so that a run that never starts leaves no table."""
        rows: list[Row] = []
        if self._keep_until is not None and self.file.is_file():
            whole = self.file.read_bytes().rpartition(b"\n")[0]  # a kill may have cut the last row
            columns, rows = _read(io.StringIO(whole.decode(), newline=""))
            self._columns = [*columns, *(name for name in self._columns if name not in columns)]
        self._replace([row for row in rows if _step(row) <= (self._keep_until or 0)])
        self._is_open = True

    def _widen(self) -> None:
        with self.file.open("rb") as table:
            settled = table.read(self._settled).decode()
        self._replace(_read(io.StringIO(settled, newline=""))[1])

    def _replace(self, before: list[Row]) -> None:
        """A new file of the rows `before` and those that wait, in the order of steps."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        rows = {row[STEP]: row for row in before}
        for row in self._rows:  # a checkpoint may be of before the validation that completes its row
            rows[row[STEP]] = {**rows.get(row[STEP], {}), **row}
        ordered = sorted(rows.values(), key=_step)
        header = _lines([{name: name for name in self._columns}], self._columns)
        settled, last = header + _lines(ordered[:-1], self._columns), _lines(ordered[-1:], self._columns)
        partial = self.file.with_name(f".{self.file.name}.partial")
        try:
            partial.write_bytes(settled + last)
            partial.replace(self.file)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        self._settled, self._last, self._columns_on_disk = len(settled), last, len(self._columns)
        self._rows, self._is_late = ordered[-1:], False

    def _append(self) -> None:
        """Leave what is there and whole as it is, and write over whatever a failure left behind it."""
        settled, last = _lines(self._rows[:-1], self._columns), _lines(self._rows[-1:], self._columns)
        text = settled + last
        kept = self._last if text.startswith(self._last) else b""
        self._last = kept
        with self.file.open("r+b") as out:
            out.seek(self._settled + len(kept))
            out.truncate()
            out.write(text[len(kept) :])
        self._settled, self._last = self._settled + len(settled), last


def _step(row: Row) -> int:
    return int(row[STEP])


def _written(value: Any) -> str:
    """Counts as the whole numbers that they are."""
    return str(value) if isinstance(value, int) else repr(float(value))


def _lines(rows: Iterable[Row], columns: list[str]) -> bytes:
    out = io.StringIO(newline="")
    csv.DictWriter(out, columns, lineterminator="\n").writerows(rows)
    return out.getvalue().encode()


def read_metrics(file: Path) -> tuple[list[str], list[Row]]:
    """Column names and rows of a ``metrics.csv``; places where nothing was logged are empty."""
    with file.open(newline="", encoding="utf-8") as lines:
        return _read(lines)


def _read(lines: Iterable[str]) -> tuple[list[str], list[Row]]:
    reader = csv.DictReader(lines)
    rows = list(reader)
    return list(reader.fieldnames or [STEP]), rows
