"""A sweep's result as one table."""

from __future__ import annotations

import csv
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from slm.masking import masked, masked_argument
from slm.new_file import new_file
from slm.notices import notice
from slm.training.run_folder import RECORD_FILE, SUMMARY_FILE, read_record

SWEEP_FILE = "sweep.csv"
HYDRA_FILE = "multirun.yaml"


class SweepTable(Callback):
    """Keeps ``sweep.csv`` of a multirun: a row a run, its overrides and its figures.

    It is written anew after every job, so that a job that fails takes no other's row with it.
    """

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Mask what is secret in the ``multirun.yaml`` that Hydra wrote before the first job."""
        if config.hydra.mode == RunMode.MULTIRUN:
            _mask(Path(config.hydra.sweep.dir) / HYDRA_FILE)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Add the job's row."""
        if config.hydra.mode == RunMode.MULTIRUN:
            _write_table(Path(config.hydra.sweep.dir))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """All rows, also of jobs that ended at the same moment in other processes."""
        folder = Path(config.hydra.sweep.dir)
        if n_rows := _write_table(folder):
            notice(f"sweep: {n_rows} runs, table in {folder / SWEEP_FILE}")


def _mask(file: Path) -> None:
    """Write it anew if there is anything to mask; several jobs may do so at a time."""
    if not file.is_file():
        return
    content: Any = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    told = masked(content)
    for key, overrides in content["hydra"]["overrides"].items():
        told["hydra"]["overrides"][key] = [masked_argument(override) for override in overrides]
    if told != content:
        with new_file(file) as out:
            out.write(OmegaConf.to_yaml(OmegaConf.create(told)).encode())


def _write_table(folder: Path) -> int:
    runs = sorted((file.parent for file in folder.rglob(RECORD_FILE)), key=_job_order)
    if not runs:
        return 0
    rows = [_row(folder, run) for run in runs]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with tempfile.NamedTemporaryFile(
        "w", newline="", encoding="utf-8", dir=folder, prefix=f".{SWEEP_FILE}.", delete=False
    ) as out:
        writer = csv.DictWriter(out, columns)
        writer.writeheader()
        writer.writerows(rows)
    os.chmod(out.name, 0o644)
    os.replace(out.name, folder / SWEEP_FILE)
    return len(rows)


def _row(folder: Path, run: Path) -> dict[str, Any]:
    overrides = dict(o.lstrip("+").split("=", 1) for o in read_record(run)["overrides"] if "=" in o)
    summary = run / SUMMARY_FILE
    figures = json.loads(summary.read_text(encoding="utf-8")) if summary.is_file() else {}
    return {"run": run.relative_to(folder).as_posix(), **overrides, **figures}


def _job_order(run: Path) -> tuple[int, str]:
    return (int(run.name), "") if run.name.isdigit() else (1 << 31, run.name)
