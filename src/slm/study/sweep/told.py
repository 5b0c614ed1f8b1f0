"""A sweep as it is seen: a live table in a terminal, elsewhere a line for each trial that begins or ends."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slm.masking import masked_argument
from slm.notices import notice
from slm.study.run_record import FAILED_FILE
from slm.study.sweep.study import Study
from slm.study.sweep.table import write_table
from slm.study.sweep.trials import Outcome, Report, Trial
from slm.training.run.folder import write_json

_MOST_ROWS = 20


def in_words(outcome: Outcome) -> str:
    """How a trial ended."""
    if outcome.state == "failed":
        return f"failed: {outcome.error}"
    if outcome.loss is None:
        return f"{outcome.state}, with no validation loss" if not outcome.error else f"{outcome.state}: {outcome.error}"
    return f"{outcome.state} at step {outcome.figures['step']}, loss {outcome.loss:.4f}"


class Lines:
    """Told on stderr."""

    def began(self, trial: Trial, is_new: bool) -> None:
        if not is_new:
            notice(f"trial {trial.folder}: goes on")

    def reported(self, trial: Trial, report: Report) -> None:
        pass

    def ended(self, trial: Trial, outcome: Outcome) -> None:
        notice(f"trial {trial.folder}: {in_words(outcome)}{'; the others go on' if outcome.state == 'failed' else ''}")

    def left(self, trial: Trial, why: str) -> None:
        notice(f"trial {trial.folder}: {why}; to be gone on with")


class Files:
    """Writes ``sweep.csv`` anew whenever a trial ends, so that a sweep that dies has one, and of a trial that failed
    ``failed.json`` into its folder, by which those who see that alone know."""

    def __init__(self, study: Study) -> None:
        self._study = study

    def began(self, trial: Trial, is_new: bool) -> None:
        (self._study.folder / trial.folder / FAILED_FILE).unlink(missing_ok=True)

    def reported(self, trial: Trial, report: Report) -> None:
        pass

    def ended(self, trial: Trial, outcome: Outcome) -> None:
        if outcome.state == "failed":
            swept = [masked_argument(f"{key}={value}") for key, value in trial.values.items()]
            why = {"error": outcome.error, "mistake": outcome.mistake}
            told = {"overrides": [*self._study.asked.fixed, *swept], "swept": swept, **why}
            write_json(self._study.folder / trial.folder / FAILED_FILE, told)
        with self._study.claims.wait_for("table"):  # whoever comes last writes what is newest
            write_table(self._study.folder, self._study.all(), self._study.asked.fixed)

    def left(self, trial: Trial, why: str) -> None:
        pass


class LiveTable:
    """The newest trials, those that run and the best one, drawn anew as they change."""

    def __init__(self, study: Study, live: Any) -> None:
        self._study, self._live = study, live
        self._reports: dict[int, Report] = {}
        self._begun: dict[int, float] = {}
        self._draw()

    def began(self, trial: Trial, is_new: bool) -> None:
        self._begun[trial.number] = time.monotonic()
        self._draw()

    def reported(self, trial: Trial, report: Report) -> None:
        self._draw()

    def ended(self, trial: Trial, outcome: Outcome) -> None:
        self._begun.pop(trial.number, None)
        self._draw()

    def left(self, trial: Trial, why: str) -> None:
        self._begun.pop(trial.number, None)
        self._draw()

    def _draw(self) -> None:
        self._live.update(drawn(self._study.all(), self._begun, Path(os.path.relpath(self._study.folder))))


def drawn(trials: list[Trial], begun: dict[int, float], folder: Path) -> Any:
    """The table, for rich."""
    from rich.markup import escape
    from rich.table import Table

    count = {state: sum(trial.state == state for trial in trials) for state in ("done", "pruned", "failed", "running")}
    told = ", ".join(f"{number} {state}" for state, number in count.items() if number)
    best = min((trial for trial in trials if _loss(trial) is not None), key=lambda one: _loss(one) or 0, default=None)
    table = Table(title=f"{escape(str(folder))}: {len(trials)} trials, {told or 'none begun'}", title_justify="left")
    for name in ("trial", "state", "step", "loss", "time"):
        table.add_column(name, justify="left" if name in ("trial", "state") else "right")
    shown = [trial for trial in trials if trial.state != "waiting"]
    running = [trial for trial in shown if trial.state == "running"]
    ended = [trial for trial in shown if trial.state != "running"][-(_MOST_ROWS - len(running)) :]
    for trial in [*ended, *running]:
        table.add_row(*_cells(trial, begun), style="bold" if trial is best else None)
    return table


def _loss(trial: Trial) -> float | None:
    return trial.outcome.loss if trial.outcome else None


def _cells(trial: Trial, begun: dict[int, float]) -> list[str]:
    from rich.markup import escape

    last = trial.reports[-1] if trial.reports else None
    loss = _loss(trial) if trial.outcome else last and last.loss
    step = f"{last.step:,} of {last.steps:,}" if last else ""
    error = f": {trial.outcome.error}" if trial.outcome and trial.outcome.error else ""
    since = f"{time.monotonic() - begun[trial.number]:.0f} s" if trial.number in begun else ""
    return [escape(trial.folder), escape(f"{trial.state}{error}"), step, "" if loss is None else f"{loss:.4f}", since]


@contextmanager
def watchers(study: Study) -> Iterator[list[Any]]:
    """Those who tell of `study`."""
    table = Files(study)
    if not sys.stderr.isatty():
        yield [table, Lines()]
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(stderr=True), auto_refresh=False, vertical_overflow="visible") as live:
        shown = LiveTable(study, _Refreshing(live.update))
        yield [table, shown]


class _Refreshing:
    def __init__(self, update: Callable[..., None]) -> None:
        self._update = update

    def update(self, table: Any) -> None:
        self._update(table, refresh=True)
