"""The first steps of a run made again from its folder, and compared bit by bit."""

import contextlib
import io
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from slm.errors import UserError
from slm.training.process import provenance
from slm.training.run.checkpoint_files import CHECKPOINTS, step_files
from slm.training.run.checkpoint_io import read_checkpoint
from slm.training.run.folder import METRICS_FILE, RECORD_FILE, read_record
from slm.training.run.metrics_table import STEP, Row, read_metrics
from slm.training.run.recorded_code import refuse_unknown_code
from slm.training.run_again import composed_of, config_again, unchanged_data
from slm.training.runner import train

_TIMES = "speed/"
_VALIDATION = "val/"
_DEFAULT_STEPS = 20


@dataclass(frozen=True)
class Divergence:
    """Where a run first differs."""

    step: int
    where: str  # a column of ``metrics.csv``, or a tensor of a checkpoint
    then: str  # of a tensor how many numbers differ
    now: str
    difference: float = math.nan  # of the two numbers, or the largest in the tensor


@dataclass(frozen=True)
class Report:
    """What came of making so many steps again."""

    steps: int
    values: int  # of ``metrics.csv`` that were compared
    checkpoints: list[int]  # steps of those that were compared, tensor by tensor
    differences: list[str]  # of versions and environment, "name: then -> now"
    divergence: Divergence | None  # the first; None if all is equal


def reproduce(run: Path, steps: int | None = None, plugins: Sequence[str] = ()) -> Report:
    """Train the first `steps` steps of the run in folder `run` once more, in a temporary folder, and compare.

    The run's own configuration, seed, precision and number of threads are used; its loggers are not. The run folder is
    only read.

    Args:
        steps: None for 20, or as many as there are until the first row of ``metrics.csv``.
        plugins: modules whose code the run may run, beside slm's, torch's and Lightning's.

    Raises:
        UserError: it is no run folder; the data is another; the run had several processes; `steps` reach no row.
    """
    record = read_record(run)
    if not record.get("sessions"):
        raise UserError(f"run: '{run}' is no run folder ({RECORD_FILE} is missing)")
    refuse_unknown_code(run, plugins, left_out=("logger",))
    rows = _rows(run)
    begun_at, until, schedule = _first_schedule(record)
    first, last = min(rows), min(max(rows), until)
    steps = min(max(first, begun_at + _DEFAULT_STEPS), last) if steps is None else steps
    if not first <= steps <= last:
        raise UserError(f"steps must be {first} to {last}, the first and last row of {METRICS_FILE}; got {steps}")
    then = record["sessions"][0].get("environment", {})
    if then.get("ranks", 1) > 1:
        raise UserError(f"run: '{run}' was made by {then['ranks']} processes; runs of one alone can be made again")
    with tempfile.TemporaryDirectory(prefix="slm-reproduce-") as folder, contextlib.ExitStack() as undo:
        undo.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(then.get("threads") or torch.get_num_threads())  # which decide how sums are rounded
        again = Path(folder) / "run"
        changes: dict[str, Any] = {"run_dir": str(again), "stop_after": steps, "logger": {}, "trainer.keep": 0}
        changes["trainer.precision"] = record["precision"]  # auto may choose another today
        changes |= schedule
        composed = composed_of(run, changes)
        config = config_again(run, composed)
        unchanged_data(run, config)
        differences = _differences(record["sessions"], provenance())
        with contextlib.redirect_stderr(io.StringIO()):  # of its progress, and of a folder that is gone in a moment
            train(config, composed, [])
        values, checkpoints, divergence = _compare(run, again, rows, steps)
        return Report(steps, values, checkpoints, differences, divergence)


def _first_schedule(record: Mapping[str, Any]) -> tuple[int, int, dict[str, Any]]:
    """The step that a run begins at, the one until which its first schedule holds, and the settings of that: those of
    ``config.yaml`` may have come later. Runs of before these were noted had one."""
    schedules = record.get("schedules") or []
    if not schedules:
        return 0, sys.maxsize, {}
    first, until = schedules[0], schedules[1]["from_step"] if len(schedules) > 1 else sys.maxsize
    asked = {f"scheduler.{name}": value for name, value in first["config"].items() if value is not None}
    return first["from_step"], until, {"trainer.max_steps": first["max_steps"], "trainer.max_epochs": None, **asked}


def _rows(run: Path) -> dict[int, Row]:
    file = run / METRICS_FILE
    rows = {int(row[STEP]): row for row in read_metrics(file)[1]} if file.is_file() else {}
    if not rows:
        raise UserError(f"run: '{run}' has no {METRICS_FILE} with rows: there is nothing to compare")
    return rows


# ---- comparing ----


def _differences(sessions: list[dict[str, Any]], now: Mapping[str, Any]) -> list[str]:
    """Of the first session to this process, and between the sessions of the run."""
    first, *later, here = map(_facts, [*sessions, now])
    named = {"": here, **{f"session {i}, ": facts for i, facts in enumerate(later, start=2)}}
    return [
        f"{who}{name}: {first[name]} -> {facts[name]}"
        for who, facts in named.items()
        for name in sorted(first.keys() & facts.keys())
        if first[name] != facts[name]
    ]


def _facts(session: Mapping[str, Any]) -> dict[str, Any]:
    single = {name: session.get(name) for name in ("python", "machine", "git_commit")}
    return {**single, **session.get("versions", {}), **session.get("environment", {})}


def _compare(run: Path, again: Path, rows: Mapping[int, Row], steps: int) -> tuple[int, list[int], Divergence | None]:
    """How many values are equal, the steps whose checkpoints are, and the first difference."""
    made, values, equal = _rows(again), 0, []
    files = [step_files(folder / CHECKPOINTS) for folder in (run, again)]
    in_both = files[0].keys() & files[1].keys()
    for step in sorted(step for step in {*rows, *made, *in_both} if step <= steps):
        compared, divergence = _compare_rows(step, rows.get(step), made.get(step))
        values += compared
        if divergence is None and step in in_both:
            divergence = _compare_tensors(step, *(_tensors(read_checkpoint(kind[step])) for kind in files))
            if divergence is None:
                equal.append(step)
        if divergence is not None:
            return values, equal, divergence
    return values, equal, None


def _compare_rows(step: int, then: Row | None, now: Row | None) -> tuple[int, Divergence | None]:
    """How many values are equal, and the first that is not.

    In older folders the end of a part (``stop_after``) has a validation that an unbroken run does not have, so one that
    only either made is passed over.
    """
    if then is None or now is None:
        only = [name for name, value in (then or now or {}).items() if value and not name.startswith(_VALIDATION)]
        return 0, None if only == [STEP] else _missing(step, "row", then, now)
    compared = 0
    for name in dict.fromkeys([*then, *now]):
        a, b = then.get(name) or "", now.get(name) or ""
        if name.startswith(_TIMES) or name == STEP or (name.startswith(_VALIDATION) and not (a and b)):
            continue
        if a != b and _distance(a, b) != 0.0:  # counts were written as 128.0 once
            return compared, Divergence(step, name, a or "missing", b or "missing", _distance(a, b))
        compared += bool(a)
    return compared, None


def _missing(step: int, where: str, then: object, now: object) -> Divergence:
    there, here = ("missing" if one is None else "there" for one in (then, now))
    return Divergence(step, where, there, here)


def _distance(a: str, b: str) -> float:
    try:
        return abs(float(a) - float(b))
    except ValueError:
        return math.nan


def _compare_tensors(step: int, then: Mapping[str, torch.Tensor], now: Mapping[str, torch.Tensor]) -> Divergence | None:
    for name in sorted(then.keys() | now.keys()):
        a, b = then.get(name), now.get(name)
        if a is None or b is None:
            return _missing(step, name, a, b)
        if a.shape != b.shape:
            return Divergence(step, name, str(tuple(a.shape)), str(tuple(b.shape)))
        if not torch.equal(a, b):
            apart = (a.double() - b.double()).abs()
            count = f"{int((apart != 0).sum())} of {apart.numel()} numbers"
            return Divergence(step, name, count, "differ", float(apart.max()))
    return None


def _tensors(checkpoint: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Weights and the optimizer's state, by name."""
    found = dict(checkpoint["state_dict"])
    for parameter, state in checkpoint["optimizer_states"][0]["state"].items():
        found |= {f"optimizer.{parameter}.{name}": v for name, v in state.items() if isinstance(v, torch.Tensor)}
    return found
