"""Rows as CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slm.files.writing import new_file


def write_rows(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write `rows` to `file`, whole or not at all: a column for every name, in the order in which they come up."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)))
    writer.writeheader()
    writer.writerows(rows)
    with new_file(file) as out:
        out.write(text.getvalue().encode())
