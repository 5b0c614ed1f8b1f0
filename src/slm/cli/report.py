"""slm-report: runs, or a study, on one page."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slm.cli.app import entry_point
from slm.cli.command import Command
from slm.cli.named_runs import NamedRuns
from slm.cli.positional import words_as
from slm.cli.result import Result
from slm.errors import UserError
from slm.notices import notice
from slm.schema import Text, checked

_ENDINGS = (".html", ".json")


@dataclass(frozen=True)
class _Settings(NamedRuns):
    out: Text
    title: Text | None

    @property
    def file(self) -> Path:
        return Path(self.out).expanduser()


def report(values: dict[str, Any], settings: _Settings) -> Result:
    """The command's task."""
    from slm.study.report.as_json import as_json
    from slm.study.report.content import gather

    content = gather(settings.folders, settings.where, settings.title)
    if values["json"]:
        return Result(as_json(content))
    if settings.file.suffix == ".json":
        _write(settings.file, json.dumps(as_json(content), allow_nan=False))
    else:
        from slm.study.report.page import render

        _write(settings.file, render(content))
    return Result({}, str(settings.file))


def _write(file: Path, text: str) -> None:
    from slm.files.writing import new_file

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with new_file(file) as out:
            out.write(text.encode("utf-8", "replace"))
    except OSError as error:
        raise UserError(f"out: '{file}' cannot be written ({error.strerror or error}); name another place") from None
    notice(f"report of {len(text.encode('utf-8', 'replace')) / 1e3:,.0f} kB")


def _checked(values: dict[str, Any]) -> _Settings:
    settings = checked(_Settings, values)
    settings.check("report")
    if settings.file.suffix not in _ENDINGS:
        raise UserError(f"out: '{settings.out}' ends in none of {', '.join(_ENDINGS)}; name it so")
    return settings


_TEXTS, _PATHS = ("where", "title"), ("runs", "study", "out")
main = entry_point(Command("report", report, _checked, words_as("runs"), literal=_TEXTS, paths=_PATHS), __name__)
