"""slm-reproduce: is the first part of a run the same to the bit when it is made again?"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slm.cli.app import entry_point
from slm.cli.command import Command
from slm.cli.result import Result
from slm.errors import UserError
from slm.schema import FORBID_EXTRA, Count, Text, checked

if TYPE_CHECKING:
    from slm.training.reproduce import Report

_DIVERGED = 1  # the exit status; 2 is a mistake


@dataclass(frozen=True)
class _Settings:
    __pydantic_config__ = FORBID_EXTRA
    run: Text
    steps: Count | None
    plugins: list[Text]


def reproduce(_: dict[str, Any], settings: _Settings) -> Result:
    """The command's task."""
    from slm.training.lean_lightning import import_lightning

    import_lightning()
    from slm.training.reproduce import reproduce as make_again

    report = make_again(Path(settings.run).expanduser(), settings.steps, settings.plugins)
    equal = report.divergence is None
    return Result({"equal": equal, **asdict(report)}, _in_words(report), status=0 if equal else _DIVERGED)


def _in_words(report: Report) -> str:
    lines = [f"not as then: {difference}" for difference in report.differences]
    found = report.divergence
    if found is None:
        steps = ", ".join(map(str, report.checkpoints))
        tensors = f", checkpoint step {steps}" if steps else ", no checkpoint"
        lines.append(f"equal over {report.steps} steps ({report.values:,} values{tensors})")
    else:
        apart = "" if math.isnan(found.difference) else f" (difference {found.difference:g})"
        lines.append(f"diverged at step {found.step}: {found.where}: {found.then} -> {found.now}{apart}")
        lines.append(f"equal until then: {report.values:,} values")
    return "\n".join(lines)


def _checked(values: dict[str, Any]) -> _Settings:
    if values.get("run") is None:
        raise UserError("run is missing; give run=PATH, a run folder")
    return checked(_Settings, values)


main = entry_point(Command("reproduce", reproduce, _checked, paths=("run",)), __name__)
