"""``metrics.csv``, read. Imports no torch."""

import csv
import io
from pathlib import Path

STEP = "step"

Row = dict[str, str]


def read_metrics(file: Path) -> tuple[list[str], list[Row]]:
    """Column names and rows of a ``metrics.csv``; places where nothing was logged are empty."""
    return parse_metrics(file.read_bytes())


def parse_metrics(table: bytes) -> tuple[list[str], list[Row]]:
    """The same of the bytes of one."""
    reader = csv.DictReader(io.StringIO(table.decode(), newline=""))
    rows = list(reader)
    return list(reader.fieldnames or [STEP]), rows
