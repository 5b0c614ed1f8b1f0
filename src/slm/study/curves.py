"""What ``metrics.csv`` holds, as columns of numbers, each row with the steps, tokens and seconds it stands at."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from slm.training.run.metrics_table import STEP, Row, parse_metrics

Axis = Literal["steps", "tokens", "time", "flops"]
AXES: tuple[Axis, ...] = get_args(Axis)
Measure = Literal["loss", "perplexity", "bits_per_byte"]
"""Of a validation; the lower the better."""
TRAIN_LOSS, VAL_LOSS = "train/loss", "val/loss"
_TOKENS, _STEP_MS = "train/tokens", "speed/step_ms"


@dataclass(frozen=True)
class Curves:
    """The rows of a run, by steps; a place where nothing was logged is nan.

    `tokens` are those that were learnt from, `seconds` those of training alone (validation and saving left out), both
    since the run's start. In between two rows that say them, and behind the last, they are those of a steady speed.
    """

    steps: list[float]
    tokens: list[float]
    seconds: list[float]
    columns: Mapping[str, list[float]]  # as they are called in the file: ``train/loss``, ``val/loss``, ``train/lr`` …

    def points(self, column: str, at: Axis = "steps", flops_per_token: float = math.nan) -> list[tuple[float, float]]:
        """(x, value) of the rows that have both; x in steps, tokens, seconds or floating-point operations."""
        by_axis: dict[Axis, Sequence[float]] = {"steps": self.steps, "tokens": self.tokens, "time": self.seconds}
        xs = by_axis[at] if at != "flops" else [flops_per_token * tokens for tokens in self.tokens]
        values = self.columns.get(column, ())
        return [(x, y) for x, y in zip(xs, values, strict=False) if math.isfinite(x) and math.isfinite(y)]


def read_curves(file: Path) -> Curves:
    """Of a run's ``metrics.csv``; no rows without one, or if it is damaged."""
    names, rows = _whole_rows(file.read_bytes() if file.is_file() else b"")
    steps = [float(row[STEP]) for row in rows]
    columns = {name: [_number(row.get(name)) for row in rows] for name in names if name and name != STEP}
    unknown = [math.nan] * len(steps)
    tokens = _steady(steps, columns.get(_TOKENS, unknown))
    return Curves(steps, tokens, _seconds(steps, columns.get(_STEP_MS, unknown)), columns)


def last_row(file: Path) -> Row:
    """The last whole row of a ``metrics.csv``, read from its end; {} without one."""
    if not file.is_file():
        return {}
    with file.open("rb") as table:
        header = table.readline()
        table.seek(max(len(header), table.seek(0, 2) - 16 * max(len(header), 256)))
        lines = table.read().rpartition(b"\n")[0].splitlines()
    rows = _whole_rows(header + lines[-1] + b"\n")[1] if lines else []
    return rows[-1] if rows else {}


def _whole_rows(table: bytes) -> tuple[list[str], list[Row]]:
    """Column names and rows by steps of a table that may be growing: one that is cut in the middle is left out."""
    try:
        names, rows = parse_metrics(table.rpartition(b"\n")[0])
    except (UnicodeDecodeError, csv.Error):  # a power cut leaves zeros behind
        return [], []
    rows = [row for row in rows if (row.get(STEP) or "").isdecimal()]
    return names, sorted(rows, key=lambda row: int(row[STEP]))


def _number(text: str | None) -> float:
    try:
        return float(text) if text else math.nan
    except ValueError:  # somebody else's column
        return math.nan


def _seconds(steps: Sequence[float], step_ms: Sequence[float]) -> list[float]:
    """Added up: a row says how long a step took on average since the row before that says so."""
    total, before, known = 0.0, 0.0, []
    for step, milliseconds in zip(steps, step_ms, strict=True):
        if math.isfinite(milliseconds):
            total, before = total + (step - before) * milliseconds / 1000, step
        known.append(total if math.isfinite(milliseconds) else math.nan)
    return _steady(steps, known)


def _steady(steps: Sequence[float], values: Sequence[float]) -> list[float]:
    """`values` with those that are missing put on straight lines over the steps, from (0, 0) on."""
    known = [(0.0, 0.0), *((step, value) for step, value in zip(steps, values, strict=True) if math.isfinite(value))]
    if len(known) == 1:
        return list(values)
    filled, place = [], 0
    for step in steps:
        while place < len(known) - 2 and known[place + 1][0] < step:
            place += 1
        (left, low), (right, high) = known[place], known[place + 1]
        filled.append(low + (high - low) * (step - left) / (right - left) if right > left else high)
    return filled
