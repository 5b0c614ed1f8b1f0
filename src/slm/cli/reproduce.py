"""slm-reproduce: is the first part of a run the same to the bit when it is made again?"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slm.cli.app import entry_point
from slm.cli.command import Command
from slm.errors import UserError
from slm.schema import FORBID_EXTRA, Count, Flag, Text, checked

if TYPE_CHECKING:
    from slm.training.reproduce import Report


@dataclass(frozen=True)
class _Settings:
    __pydantic_config__ = FORBID_EXTRA
    run: Text
    steps: Count | None
    json: Flag
    plugins: list[Text]


def reproduce(_: dict[str, Any], settings: _Settings) -> None:
    """The command's task."""
    from slm.training.lean_lightning import import_lightning

    import_lightning()
    from slm.training.reproduce import reproduce as make_again

    report = make_again(Path(settings.run).expanduser(), settings.steps, settings.plugins)
    content: dict[str, Any] = {"equal": report.divergence is None, **asdict(report)}
    if report.divergence is not None and math.isnan(report.divergence.difference):
        content["divergence"]["difference"] = None  # JSON knows no NaN
    print(json.dumps(content, allow_nan=False) if settings.json else _in_words(report))
    if report.divergence is not None:
        sys.exit(1)  # 2 is a mistake


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
