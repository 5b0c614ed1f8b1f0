"""A sweep's result as one table."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from slm.notices import notice
from slm.training.run_folder import RECORD_FILE, SUMMARY_FILE, read_record

SWEEP_FILE = "sweep.csv"


class SweepTable(Callback):
    """Writes ``sweep.csv`` at the end of a multirun: a row a run, its overrides and its figures."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Collect the run folders below the sweep's."""
        folder = Path(config.hydra.sweep.dir)
        runs = sorted((file.parent for file in folder.rglob(RECORD_FILE)), key=_job_order)
        if not runs:
            return
        rows = [_row(folder, run) for run in runs]
        columns = list(dict.fromkeys(name for row in rows for name in row))
        with (folder / SWEEP_FILE).open("w", newline="", encoding="utf-8") as out:
            writer = csv.DictWriter(out, columns)
            writer.writeheader()
            writer.writerows(rows)
        notice(f"sweep: {len(rows)} runs, table in {folder / SWEEP_FILE}")


def _row(folder: Path, run: Path) -> dict[str, Any]:
    overrides = dict(o.lstrip("+").split("=", 1) for o in read_record(run)["overrides"] if "=" in o)
    summary = run / SUMMARY_FILE
    figures = json.loads(summary.read_text(encoding="utf-8")) if summary.is_file() else {}
    return {"run": run.relative_to(folder).as_posix(), **overrides, **figures}


def _job_order(run: Path) -> tuple[int, str]:
    return (int(run.name), "") if run.name.isdigit() else (1 << 31, run.name)
