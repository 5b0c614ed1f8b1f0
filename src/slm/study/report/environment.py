"""Where runs were made: versions, machine, commit; what all have in common, and what differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slm.study.recorded_settings import flat
from slm.study.run_record import RunRecord, sessions_of

_TOLD = ("python", "machine", "git_commit")
_SECTIONS = ("versions", "environment")


@dataclass(frozen=True)
class Environment:
    """Name -> value of what all runs share, and of what differs the values in the runs' order."""

    common: dict[str, str]
    differing: dict[str, list[str]]


def environment_of(runs: Sequence[RunRecord]) -> Environment:
    """Of each run's last session."""
    told = [_told((sessions_of(run.record) or [{}])[-1]) for run in runs]
    names = dict.fromkeys(name for one in told for name in one)
    values = {name: [one.get(name, "") for one in told] for name in names}
    common = {name: found[0] for name, found in values.items() if len(set(found)) == 1}
    return Environment(common, {name: found for name, found in values.items() if name not in common})


def _told(session: Mapping[str, Any]) -> dict[str, str]:
    sections = [session.get(section) for section in _SECTIONS]
    nested = [flat(section) for section in sections if isinstance(section, dict)]
    values = {name: session.get(name) for name in _TOLD}
    for section in nested:
        values |= section
    return {name: str(value) for name, value in values.items() if value not in (None, "", False)}
