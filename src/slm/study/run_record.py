"""A run as its folder tells it, without torch: state, figures, settings. Files are read when they are asked for."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from slm.errors import UserError
from slm.files.reading import read_json_object
from slm.study.curves import TRAIN_LOSS, VAL_LOSS, Curves, last_row, read_curves
from slm.study.recorded_settings import read_settings, typed_settings
from slm.training.run.checkpoint_files import checkpoints_of
from slm.training.run.folder import CONFIG_FILE, METRICS_FILE, RECORD_FILE, SUMMARY_FILE, TIME, read_record
from slm.training.run.lock import HOLDER_FILE, LOCK_FILE, is_held

State = Literal["running", "done", "stopped", "killed", "failed"]
"""A run that is `stopped` is to be gone on with; one that was `killed` is as well, from its last save."""

FAILED_FILE = "failed.json"
"""Of a sweep's job that failed: its overrides, and why."""
TABLE_FILE = "sweep.csv"
"""Of a sweep: a row a run."""

OF_THE_FOLDER = frozenset({"run_dir", "resume", "stop_after"})
"""Settings that say where a run lies and how far this part of it goes, not what it is."""
SEED = "seed"


@dataclass(frozen=True)
class RunRecord:
    """A run folder."""

    folder: Path
    files: frozenset[str] = field(repr=False)  # names of what lies there
    record: Mapping[str, Any] = field(repr=False)  # ``run.json``, {} without one
    failure: Mapping[str, Any] = field(repr=False)  # ``failed.json``, {} without one
    damage: str | None = None  # what is wrong with ``run.json``

    # ---- what it is ----

    @property
    def overrides(self) -> list[str]:
        """Of the command line, as they were typed."""
        found = self.record.get("overrides") or self.failure.get("overrides")
        return [str(one) for one in found] if isinstance(found, list) else []

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Dotted key -> value of the whole configuration, with what ``auto`` and shares came to; of a run that was
        refused before it began, those that were typed."""
        composed = read_settings(self.folder / CONFIG_FILE) if CONFIG_FILE in self.files else {}
        resolved = self.record.get("resolved")
        return {**(composed or typed_settings(self.overrides)), **(resolved if isinstance(resolved, dict) else {})}

    @property
    def seed(self) -> int | None:
        seed = self.settings.get(SEED)
        return seed if isinstance(seed, int) else None

    @property
    def commit(self) -> str | None:
        """Git's, of the folder that the last session was started in; ``…-dirty`` where something was changed."""
        return self._session.get("git_commit")

    @property
    def parameters(self) -> int | None:
        return _count(self.record.get("parameters"))

    @property
    def flops_per_token(self) -> float:
        """Floating-point operations of a token's forward and backward pass; nan where it was not noted."""
        return _figure(self.record.get("flops_per_token"))

    # ---- what became of it ----

    @cached_property
    def state(self) -> State:
        """Whoever ends by itself takes its lock away, so one that is left and held by nobody is of a process that was
        killed."""
        if LOCK_FILE in self.files and is_held(self.folder):
            return "running"
        if self.failure or self.damage:
            return "failed"
        if self.files & {LOCK_FILE, HOLDER_FILE} or self._end == "killed":
            return "killed"
        if self._end in ("failed", "stopped"):
            return "failed" if self._end == "failed" else "stopped"
        if not self._end and SUMMARY_FILE not in self.files:  # of a version that noted no end
            return "stopped" if checkpoints_of(self.folder) else "failed"
        return "done" if self.max_steps is None or _figure(self._summary.get("step")) >= self.max_steps else "stopped"

    @property
    def error(self) -> str | None:
        """Why a run failed, as far as it is known."""
        if self.state != "failed":
            return None
        told = self.damage or self.failure.get("error") or self._session.get("error")
        return None if told is None else str(told)

    @cached_property
    def summary(self) -> Mapping[str, Any]:
        """``summary.json``; {} where it is of a session before the last one."""
        return self._summary if self.state in ("done", "stopped") and self._end in (None, "done") else {}

    @cached_property
    def _summary(self) -> Mapping[str, Any]:
        return _read(self.folder / SUMMARY_FILE) if SUMMARY_FILE in self.files else {}

    @property
    def _end(self) -> str | None:
        return self._session.get("end")

    @property
    def step(self) -> int:
        noted = self.summary.get("step")
        return noted if isinstance(noted, int) else int(self._last_row.get("step") or 0)

    @property
    def max_steps(self) -> int | None:
        return _count(self.settings.get("trainer.max_steps"))

    @property
    def best_val_loss(self) -> float:
        """In nats per token, of preferences in nats a pair; nan without a validation."""
        noted = _figure(self.summary.get("best_val_loss"))
        return noted if math.isfinite(noted) else min((loss for _, loss in self._validations), default=math.nan)

    @property
    def last_val_loss(self) -> float:
        noted = _figure(self.summary.get("val_loss"))
        return noted if math.isfinite(noted) else next((loss for _, loss in reversed(self._validations)), math.nan)

    @property
    def train_loss(self) -> float:
        """Of the last row of the log."""
        return next((loss for _, loss in reversed(self.metrics.points(TRAIN_LOSS))), math.nan)

    @property
    def tokens_per_s(self) -> float:
        """Over the last session that came to its end; of one that did not, what its log said last."""
        return _figure(self.summary.get("tokens_per_s") or self._last_row.get("speed/tokens_per_s"))

    @property
    def started(self) -> datetime | None:
        """When the first session began."""
        return _time((self._sessions or [{}])[0].get("started"))

    @property
    def ended(self) -> datetime | None:
        """When the last session ended, as it noted, else when it last wrote something; None of one that runs."""
        if self.state == "running":
            return None
        return _time(self._session.get("ended")) or _last_written(self.folder)

    @cached_property
    def metrics(self) -> Curves:
        """``metrics.csv``, whole."""
        return read_curves(self.folder / METRICS_FILE)

    @property
    def _validations(self) -> list[tuple[float, float]]:
        return self.metrics.points(VAL_LOSS)

    @cached_property
    def _last_row(self) -> dict[str, str]:
        return last_row(self.folder / METRICS_FILE)

    @property
    def _sessions(self) -> list[Mapping[str, Any]]:
        return sessions_of(self.record)

    @property
    def _session(self) -> Mapping[str, Any]:
        return (self._sessions or [{}])[-1]


# ---- reading ----


def read_run(folder: Path) -> RunRecord:
    """The run in `folder`; one whose ``run.json`` is damaged has failed, and its `error` says what is wrong with it."""
    return _read_run(folder, os.listdir(folder))


def runs_below(folder: Path) -> list[RunRecord]:
    """Every run in `folder` and below it, itself if it is one, the oldest first. `UserError`: it is no folder."""
    if not folder.is_dir():
        raise UserError(f"'{folder}' is no folder; name one that holds runs (slm-train puts them into outputs/)")
    found = []
    for place, folders, names in os.walk(folder):
        if RECORD_FILE in names or FAILED_FILE in names:
            found.append(_read_run(Path(place), names))
            folders.clear()  # what a run holds are no runs
    return sorted(found, key=lambda run: (run.started.timestamp() if run.started else 0.0, str(run.folder)))


def runs_in(places: Sequence[Path]) -> list[RunRecord]:
    """Those in each of `places` and below it, none twice. `UserError`: one is no folder."""
    return list({run.folder.resolve(): run for place in places for run in runs_below(place)}.values())


def _read_run(folder: Path, names: Collection[str]) -> RunRecord:
    files = frozenset(names)
    failure = _read(folder / FAILED_FILE) if FAILED_FILE in files else {}
    try:
        record = read_record(folder) if RECORD_FILE in files else {}
    except UserError as error:
        return RunRecord(folder, files, {}, failure, str(error))
    return RunRecord(folder, files, record, failure)


def sessions_of(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What ``run.json`` says of each session; none of somebody else's file."""
    sessions = record.get("sessions")
    return [one for one in sessions if isinstance(one, dict)] if isinstance(sessions, list) else []


def differing(runs: Sequence[RunRecord], but: Collection[str] = OF_THE_FOLDER) -> list[str]:
    """The dotted keys whose values differ among `runs`, those `but` left out, in the order of the configuration. A run
    that was refused before it began counts with what was typed for it alone."""
    keys = {key: None for run in runs for key in run.settings if key not in but}
    whole = [run.settings for run in runs if CONFIG_FILE in run.files]
    typed = [run.settings for run in runs if CONFIG_FILE not in run.files]
    return [key for key in keys if _differs(key, whole, typed)]


_ABSENT = object()


def _differs(key: str, whole: Sequence[Mapping[str, Any]], typed: Sequence[Mapping[str, Any]]) -> bool:
    values = [settings.get(key, _ABSENT) for settings in whole]
    values += [settings[key] for settings in typed if key in settings]
    return any(value != values[0] for value in values)


def _read(file: Path) -> dict[str, Any]:
    """{} if it is damaged: the figures are in ``metrics.csv`` as well."""
    try:
        return read_json_object(file)
    except UserError:
        return {}


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _figure(value: Any) -> float:
    try:
        return math.nan if value is None else float(value)
    except (TypeError, ValueError):
        return math.nan


def _time(noted: Any) -> datetime | None:
    try:
        return datetime.strptime(noted, TIME)
    except (TypeError, ValueError):
        return None


def _last_written(folder: Path) -> datetime | None:
    files = [folder / name for name in (METRICS_FILE, RECORD_FILE, FAILED_FILE)]
    times = [file.stat().st_mtime for file in files if file.exists()]
    return datetime.fromtimestamp(max(times)).astimezone() if times else None
