"""The first steps of a run made again from its folder, and compared bit by bit."""

from __future__ import annotations

import contextlib
import io
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from slm.errors import UserError
from slm.training.run.checkpoint_files import CHECKPOINTS, step_files
from slm.training.run.checkpoint_io import read_checkpoint
from slm.training.run.folder import METRICS_FILE, RECORD_FILE, read_record
from slm.training.run.provenance import environment, provenance
from slm.training.run.recorded_code import refuse_unknown_code
from slm.training.run_again import composed_of, config_again, unchanged_data
from slm.training.runner import train
from slm.training.watch.csv_logger import STEP, Row, read_metrics

_TIMES = "speed/"
_VALIDATION = "val/"
_DEFAULT_STEPS = 20


@dataclass(frozen=True)
class Divergence:
    """Where a run first differs.

    Attributes:
        step: the optimizer step.
        where: a column of ``metrics.csv``, or a tensor of a checkpoint.
        then, now: the values; of a tensor how many numbers differ.
        difference: of the two numbers, or the largest in the tensor; nan where there is none.
    """

    step: int
    where: str
    then: str
    now: str
    difference: float


@dataclass(frozen=True)
class Report:
    """What came of making steps again.

    Attributes:
        steps: how many.
        values: of ``metrics.csv`` that were compared.
        checkpoints: steps whose checkpoints were compared, tensor by tensor.
        differences: of versions and environment, "name: then -> now".
        divergence: the first; None if all is equal.
    """

    steps: int
    values: int
    checkpoints: list[int]
    differences: list[str]
    divergence: Divergence | None

    def as_dict(self) -> dict[str, Any]:
        """Plain types."""
        return {"equal": self.divergence is None, **asdict(self)}


def reproduce(run: Path, steps: int | None = None, plugins: Sequence[str] = ()) -> Report:
    """Train the first `steps` steps of the run in folder `run` once more, in a temporary folder, and compare.

    The run's own configuration, seed, precision and number of threads are used; its loggers are not. The run folder is
    only read.

    Args:
        run: a run folder.
        steps: how many; None for 20, or as many as there are until the first row of ``metrics.csv``.
        plugins: modules whose code the run may run, beside slm's, torch's and Lightning's.

    Raises:
        UserError: it is no run folder; the data is another; the run had several processes; `steps` reach no row.
    """
    record = read_record(run)
    if not record.get("sessions"):
        raise UserError(f"run: '{run}' is no run folder ({RECORD_FILE} is missing)")
    refuse_unknown_code(run, plugins, left_out=("logger",))
    rows = _rows(run)
    steps = _steps(rows, steps, run)
    then = record["sessions"][0].get("environment", {})
    if then.get("ranks", 1) > 1:
        raise UserError(f"run: '{run}' was made by {then['ranks']} processes; runs of one alone can be made again")
    with tempfile.TemporaryDirectory(prefix="slm-reproduce-") as folder, _threads(then.get("threads")):
        again = Path(folder) / "run"
        composed = composed_of(run, _changes(again, steps, record))
        config = config_again(run, composed)
        unchanged_data(run, config)
        differences = _differences(record["sessions"], {**provenance(), "environment": environment()})
        with contextlib.redirect_stderr(io.StringIO()):  # of its progress, and of a folder that is gone in a moment
            train(config, composed, [])
        return replace(_compare(run, again, rows, steps), differences=differences)


def _rows(run: Path) -> dict[int, Row]:
    file = run / METRICS_FILE
    if not file.is_file():
        raise UserError(f"run: '{run}' has no {METRICS_FILE}: there is nothing to compare")
    return {int(row[STEP]): row for row in read_metrics(file)[1]}


def _steps(rows: Mapping[int, Row], wanted: int | None, run: Path) -> int:
    if not rows:
        raise UserError(f"run: {run / METRICS_FILE} has no row: there is nothing to compare")
    first, last = min(rows), max(rows)
    if wanted is None:
        return min(max(first, _DEFAULT_STEPS), last)
    if not first <= wanted <= last:
        raise UserError(f"steps must be {first} to {last}, the first and last row of {METRICS_FILE}; got {wanted}")
    return wanted


def _changes(again: Path, steps: int, record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "run_dir": str(again),
        "stop_after": steps,
        "logger": {},
        "trainer.precision": record["precision"],  # auto may choose another today
        "trainer.keep": 0,
    }


@contextlib.contextmanager
def _threads(then: int | None) -> Iterator[None]:
    """Sums of many threads are rounded otherwise than those of few."""
    before = torch.get_num_threads()
    torch.set_num_threads(then or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# ---- comparing ----


def _differences(sessions: list[dict[str, Any]], now: Mapping[str, Any]) -> list[str]:
    """Of the first session to this process, and between the sessions of the run."""
    here = _facts(now)
    named = [("", _facts(sessions[0]), here)]
    named += [(f"session {i + 2}, ", _facts(sessions[0]), _facts(later)) for i, later in enumerate(sessions[1:])]
    return [
        f"{who}{name}: {a.get(name)} -> {b.get(name)}"
        for who, a, b in named
        for name in sorted(a.keys() & b.keys())
        if a[name] != b[name]
    ]


def _facts(session: Mapping[str, Any]) -> dict[str, Any]:
    single = {name: session.get(name) for name in ("python", "machine", "git_commit")}
    return {**single, **session.get("versions", {}), **session.get("environment", {})}


def _compare(run: Path, again: Path, rows: Mapping[int, Row], steps: int) -> Report:
    made = _rows(again)
    checkpoints = sorted(step_files(run / CHECKPOINTS).keys() & step_files(again / CHECKPOINTS).keys())
    values = 0
    for step in sorted({*rows, *made, *checkpoints}):
        if step > steps:
            break
        compared, divergence = _compare_rows(step, rows.get(step), made.get(step))
        values += compared
        if divergence is None and step in checkpoints:
            files = (step_files(folder / CHECKPOINTS)[step] for folder in (run, again))
            divergence = _compare_checkpoints(step, *map(read_checkpoint, files))
        if divergence is not None:
            return Report(steps, values, [other for other in checkpoints if other < step], [], divergence)
    return Report(steps, values, [step for step in checkpoints if step <= steps], [], None)


def _compare_rows(step: int, then: Row | None, now: Row | None) -> tuple[int, Divergence | None]:
    """How many values are equal, and the first that is not.

    In older folders the end of a part (``stop_after``) has a validation that an unbroken run does not have, so one that
    only either made is passed over.
    """
    if then is None or now is None:
        only = [name for name, value in (then or now or {}).items() if value and not name.startswith(_VALIDATION)]
        if only == [STEP]:
            return 0, None
        return 0, Divergence(step, "row", "there" if then else "missing", "there" if now else "missing", math.nan)
    compared = 0
    for name in dict.fromkeys([*then, *now]):
        a, b = then.get(name) or "", now.get(name) or ""
        if name.startswith(_TIMES) or name == STEP or (name.startswith(_VALIDATION) and not (a and b)):
            continue
        if a != b and _distance(a, b) != 0.0:  # counts were written as 128.0 once
            return compared, Divergence(step, name, a or "missing", b or "missing", _distance(a, b))
        compared += bool(a)
    return compared, None


def _distance(a: str, b: str) -> float:
    try:
        return abs(float(a) - float(b))
    except ValueError:
        return math.nan


def _compare_checkpoints(step: int, then: Mapping[str, Any], now: Mapping[str, Any]) -> Divergence | None:
    a, b = _tensors(then), _tensors(now)
    for name in sorted(a.keys() | b.keys()):
        if name not in a or name not in b:
            return Divergence(
                step, name, "there" if name in a else "missing", "there" if name in b else "missing", math.nan
            )
        if a[name].shape != b[name].shape:
            return Divergence(step, name, str(tuple(a[name].shape)), str(tuple(b[name].shape)), math.nan)
        if not torch.equal(a[name], b[name]):
            apart = (a[name].double() - b[name].double()).abs()
            count = f"{int((apart != 0).sum())} of {apart.numel()} numbers"
            return Divergence(step, name, count, "differ", float(apart.max()))
    return None


def _tensors(checkpoint: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Weights and the optimizer's state, by name."""
    found = dict(checkpoint["state_dict"])
    for parameter, state in checkpoint["optimizer_states"][0]["state"].items():
        found |= {f"optimizer.{parameter}.{name}": v for name, v in state.items() if isinstance(v, torch.Tensor)}
    return found
