"""``metrics.csv``: always there, appended to, and continued by a resumed run."""

from __future__ import annotations

import csv
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning_fabric.utilities.rank_zero import rank_zero_only
from pytorch_lightning.loggers.logger import Logger

STEP = "step"


class CsvLogger(Logger):
    """One row a step; metrics logged for the same step share its row.

    Every row is on disk as soon as it is logged. A new column widens the file once.

    Args:
        file: the table.
        keep_until: of an older table, rows after this step are dropped (the resumed run makes
            them again); None starts a new table.
    """

    def __init__(self, file: Path, keep_until: int | None = None) -> None:
        super().__init__()
        self.file = file
        self._columns: list[str] = [STEP]
        self._rows: list[dict[str, str]] = []  # the last row only, once the file is written
        self._last_row_at = 0
        self._keep_until = keep_until
        self._is_open = False

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
        """Write the row, or complete the last one if it is of the same step."""
        if not self._is_open:
            self._open()
        values = {STEP: str(step), **{name: repr(float(value)) for name, value in metrics.items()}}
        same_step = bool(self._rows) and self._rows[-1][STEP] == values[STEP]
        if same_step:
            values = {**self._rows[-1], **values}
        if any(name not in self._columns for name in values):
            rows = read_metrics(self.file)[1]
            self._columns += [name for name in values if name not in self._columns]
            self._rewrite([*(rows[:-1] if same_step else rows), values])
            return
        with self.file.open("r+", newline="", encoding="utf-8") as out:
            if same_step:
                out.seek(self._last_row_at)
                out.truncate()
            else:
                self._last_row_at = out.seek(0, 2)
            csv.DictWriter(out, self._columns, lineterminator="\n").writerow(values)
        self._rows = [values]

    def _open(self) -> None:
        """Nothing is written before the first metric, so that a run that never starts leaves no table."""
        rows: list[dict[str, str]] = []
        if self._keep_until is not None and self.file.is_file():
            self._columns, rows = read_metrics(self.file)
        self._rewrite([row for row in rows if int(row[STEP]) <= (self._keep_until or 0)])
        self._is_open = True

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        partial = self.file.with_name(f".{self.file.name}.partial")
        with partial.open("w", newline="", encoding="utf-8") as out:
            writer = csv.DictWriter(out, self._columns, lineterminator="\n")
            writer.writeheader()
            self._last_row_at = out.tell()
            for row in rows:
                self._last_row_at = out.tell()
                writer.writerow(row)
        partial.replace(self.file)
        self._rows = rows[-1:]


def read_metrics(file: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Column names and rows of a ``metrics.csv``; places where nothing was logged are empty."""
    with file.open(newline="", encoding="utf-8") as lines:
        reader = csv.DictReader(lines)
        rows = list(reader)
        return list(reader.fieldnames or [STEP]), rows
