"""Runs as rows: chosen, ordered, shown."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from slm.errors import UserError, suggestion
from slm.notices import in_columns
from slm.study.names import in_words, short_names, telling, typed, value_of
from slm.study.run_record import RunRecord
from slm.study.where import parse_condition
from slm.suggest.nearest import ranked
from slm.training.run.folder import as_one_types_it

_FIGURES: dict[str, Callable[[RunRecord], Any]] = {
    "run": lambda run: str(as_one_types_it(run.folder)),
    "state": lambda run: run.state,
    "step": lambda run: run.step,
    "max_steps": lambda run: run.max_steps,
    "val_loss": lambda run: run.best_val_loss,
    "last_val_loss": lambda run: run.last_val_loss,
    "tokens_per_s": lambda run: run.tokens_per_s,
    "parameters": lambda run: run.parameters,
    "commit": lambda run: run.commit,
    "started": lambda run: _text(run.started),
    "ended": lambda run: _text(run.ended),
    "error": lambda run: run.error,
}
"""What a run can be chosen and ordered by, beside its settings; `val_loss` is the best one."""


def value(run: RunRecord, name: str) -> Any:
    """A figure of the run, one of its settings, or a choice typed for it; None where it has none."""
    found = _FIGURES[name](run) if name in _FIGURES else value_of(run, name)
    return None if isinstance(found, float) and math.isnan(found) else found


def chosen(runs: Sequence[RunRecord], where: str | None) -> list[RunRecord]:
    """Those that meet the condition; `UserError` for one that cannot be read, or a name that no run has."""
    if where is None:
        return list(runs)
    condition = parse_condition(where)
    for name in condition.names:
        _check_name(name, runs, "where")
    return [run for run in runs if condition.holds(lambda name, run=run: value(run, name))]  # type: ignore[misc]


def ordered(runs: Sequence[RunRecord], sort: str | None) -> list[RunRecord]:
    """By a figure or setting, ``-name`` downwards, runs without it last; None leaves them by their age."""
    if sort is None:
        return list(runs)
    name = sort.removeprefix("-")
    _check_name(name, runs, "sort")
    having = [run for run in runs if value(run, name) is not None]
    numbers = all(isinstance(value(run, name), (int, float)) for run in having)
    having.sort(key=lambda run: value(run, name) if numbers else str(value(run, name)), reverse=sort.startswith("-"))
    return [*having, *(run for run in runs if value(run, name) is None)]


def as_json(runs: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """A mapping a run: its figures, its overrides, and the settings that differ among `runs`."""
    keys = telling(runs, with_seed=True)
    figures = [{name: value(run, name) for name in _FIGURES} for run in runs]
    return [
        {**row, "overrides": run.overrides, "settings": {key: value_of(run, key) for key in keys}}
        for row, run in zip(figures, runs, strict=True)
    ]


def lines(runs: Sequence[RunRecord], now: datetime) -> list[str]:
    """A line a run below a line of names, aligned; times as how long ago. What has no bounds stands last."""
    names = short_names(telling(runs, with_seed=True))
    rows = [_HEADER, *(_cells(run, names, now) for run in runs)]
    return in_columns(rows, [_TO_THE_RIGHT.get(name, str.ljust) for name in _HEADER])


_HEADER = ["run", "state", "step", "val loss", "tokens/s", "ended", "commit", "settings"]
_TO_THE_RIGHT = dict.fromkeys(("step", "val loss", "tokens/s", "ended"), str.rjust)


def _cells(run: RunRecord, names: Mapping[str, str], now: datetime) -> list[str]:
    settings = {short: value_of(run, key) for key, short in names.items()}
    said = in_words({name: given for name, given in settings.items() if given is not None})
    return [
        str(as_one_types_it(run.folder)),
        run.state,
        f"{run.step:,}" + (f"/{run.max_steps:,}" if run.max_steps else ""),
        "" if math.isnan(run.best_val_loss) else f"{run.best_val_loss:.4f}",
        "" if math.isnan(run.tokens_per_s) else f"{run.tokens_per_s:,.0f}",
        "" if run.ended is None else ago((now - run.ended).total_seconds()),
        _short_commit(run.commit),
        " ".join(filter(None, [said, run.error and f"({' '.join(run.error.split())})"])),
    ]


def ago(seconds: float) -> str:
    """``3 h ago``."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return "just now"


def _check_name(name: str, runs: Sequence[RunRecord], where: str) -> None:
    known = {*_FIGURES, *(key for run in runs for key in (*run.settings, *typed(run)))}
    if name in known or not runs:
        return
    ends = sorted(key for key in known if key.endswith(f".{name}"))
    said = suggestion((ends or ranked(name, known))[:2])
    figures = ", ".join(_FIGURES)
    raise UserError(f"{where}: no run has '{name}'{said}; it takes any dotted setting and {figures}")


def _text(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat(timespec="seconds")


def _short_commit(commit: str | None) -> str:
    name, dash, dirty = (commit or "").partition("-")
    return f"{name[:8]}{'+' if dash and dirty == 'dirty' else ''}"
