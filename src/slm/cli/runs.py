"""slm-runs: what was run below a folder."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from slm.cli.app import entry_point
from slm.cli.command import Command
from slm.cli.positional import words_as
from slm.cli.result import Result
from slm.notices import notice
from slm.schema import FORBID_EXTRA, Text, checked


@dataclass(frozen=True)
class _Settings:
    __pydantic_config__ = FORBID_EXTRA
    folder: Text | list[Text]
    where: Text | None
    sort: Text | None


def runs(values: dict[str, Any], settings: _Settings) -> Result | None:
    """The command's task; there may be nothing to print."""
    from slm.study.run_record import runs_below
    from slm.study.run_table import as_json, chosen, lines, ordered

    folders = [settings.folder] if isinstance(settings.folder, str) else settings.folder
    found = [run for folder in folders for run in runs_below(Path(folder).expanduser())]
    shown = ordered(chosen(found, settings.where), settings.sort)
    if values["json"]:
        return Result({"runs": as_json(shown)})
    if not shown:
        unmet = f" meets where={settings.where} (of {len(found):,})" if found else ""
        notice(f"no run below {', '.join(folders)}{unmet}")
        return None
    return Result({}, "\n".join(lines(shown, datetime.now().astimezone())))


def _checked(values: dict[str, Any]) -> _Settings:
    return checked(_Settings, values)


_TEXTS = ("where", "sort")
main = entry_point(Command("runs", runs, _checked, words_as("folder"), literal=_TEXTS, paths=("folder",)), __name__)
