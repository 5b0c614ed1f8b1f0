"""The BabyLM challenge's evaluation: the tasks that lie in a folder, and the predictions that are handed in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slm.errors import UserError
from slm.evaluation.babylm.items import Item, items_in
from slm.evaluation.babylm.ranking import ranked
from slm.evaluation.babylm.reading_times import reading
from slm.evaluation.benchmark_config import BenchmarkConfig
from slm.evaluation.benchmarks.findings import Findings
from slm.evaluation.reader import Reader

_TASKS = {  # by what the name of a folder begins with
    "blimp": "blimp",
    "supplement": "blimp",
    "ewok": "ewok",
    "entity_tracking": "entity_tracking",
    "wug_adj": "wug_adj",
    "wug_past": "wug_past",
    "comps": "comps",
}
_READING = "reading/reading_data.csv"


@dataclass(frozen=True)
class Challenge:
    """All that lies in a folder as the challenge gives it (``fast_eval``, ``full_eval``)."""

    items: dict[str, Sequence[Item]]  # task/folder -> its items
    reading_data: Path | None

    def __call__(self, reader: Reader) -> Findings:
        figures: dict[str, float] = {}
        by_uid: dict[str, dict[str, float]] = {}
        files: dict[str, Any] = {}
        for name, items in self.items.items():
            task, _, folder = name.partition("/")
            found = ranked(items, reader)
            figures[folder] = found.figure(task)
            by_uid[folder] = found.by_uid
            files[f"{name}/predictions.json"] = found.predictions
        if self.reading_data is not None:
            read = reading(self.reading_data, reader)
            figures |= {f"reading_{name}": value for name, value in read.figures.items()}
            files["reading/predictions.json"] = read.predictions
        return Findings(figures, {"by_uid": by_uid}, files=files)


def challenge(config: BenchmarkConfig) -> Challenge:
    """Of the folder that is configured; `UserError` where none of the tasks lies in it. A `limit` is of each file's."""
    root = Path(str(config.babylm.path)).expanduser()
    folders = sorted(place for place in root.glob("*") if place.is_dir())
    items: dict[str, Sequence[Item]] = {}
    for folder in folders:
        task = next((task for prefix, task in _TASKS.items() if folder.name.startswith(prefix)), None)
        files = sorted(folder.glob("*.jsonl"))
        if task is not None and files:
            read = [items_in(task, file) for file in files]
            items[f"{task}/{folder.name}"] = [one for found in read for one in found[: config.taken(len(found))]]
    reading_data = root / _READING
    if not items and not reading_data.is_file():
        raise UserError(
            f"babylm.path: '{root}' holds none of the challenge's tasks (blimp_fast, ewok_fast, …, each a "
            "folder of JSON Lines); name its fast_eval or full_eval"
        )
    return Challenge(items, reading_data if reading_data.is_file() else None)
