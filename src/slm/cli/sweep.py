"""A sweep's result as one table."""

from __future__ import annotations

import csv
import functools
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from slm.cli.app import USER_ERROR_STATUS, fail
from slm.cli.failed_jobs import FAILED_FILE, FailedJob, failed_jobs, remember_swept
from slm.files.writing import new_file
from slm.masking import masked, masked_argument
from slm.notices import notice
from slm.training.run.folder import RECORD_FILE, SUMMARY_FILE, read_record

SWEEP_FILE = "sweep.csv"
HYDRA_FILE = "multirun.yaml"
_LAUNCHER = "SLM_LAUNCHER"  # of the environment: the process that launches the jobs


class SweepTable(Callback):
    """Keeps ``sweep.csv`` of a multirun: a row a run, its overrides and its figures.

    It is written anew after every job, so that a job that fails takes no other's row with it; it has a row too.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Tell the processes that a launcher starts whose they are, and in what they differ."""
        os.environ[_LAUNCHER] = str(os.getpid())
        remember_swept(config.hydra.overrides.task, [str(key) for key in config.hydra.sweeper.get("params") or {}])

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Mask what is secret in the ``multirun.yaml`` that Hydra wrote before the first job; in a process of the
        launcher's, end with it."""
        if config.hydra.mode == RunMode.MULTIRUN:
            _mask(Path(config.hydra.sweep.dir) / HYDRA_FILE)
            (Path(config.hydra.runtime.output_dir) / FAILED_FILE).unlink(missing_ok=True)
            if os.environ.get(_LAUNCHER) == str(os.getppid()):
                _end_with_parent()

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Add the job's row."""
        if config.hydra.mode == RunMode.MULTIRUN:
            _write_table(Path(config.hydra.sweep.dir))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """All rows, also of jobs that ended at the same moment in other processes; status 2 if any failed, 1 for a
        bug."""
        folder = Path(config.hydra.sweep.dir)
        n_rows, failed = _write_table(folder), sorted(failed_jobs(folder), key=lambda job: _job_order(job.folder))
        if n_rows:
            notice(f"sweep: {n_rows} runs, {len(failed)} failed, table in {folder / SWEEP_FILE}")
        if failed:
            status = USER_ERROR_STATUS if all(job.mistake for job in failed) else 1
            fail(Path(sys.argv[0]).name, "\n".join(job.line for job in failed), status)


@functools.cache
def _end_with_parent() -> None:
    """A worker of joblib whose launcher was killed waits for its next job, which nobody sends, in half a gigabyte."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


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
    failed = {job.folder: job for job in failed_jobs(folder)}
    runs = sorted({*failed, *(file.parent for file in folder.rglob(RECORD_FILE))}, key=_job_order)
    if not runs:
        return 0
    rows = [_row(folder, run, failed.get(run)) for run in runs]
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


def _row(folder: Path, run: Path, failed: FailedJob | None) -> dict[str, Any]:
    typed = failed.overrides if failed else read_record(run)["overrides"]
    overrides = dict(o.lstrip("+").split("=", 1) for o in typed if "=" in o)
    summary = run / SUMMARY_FILE
    figures = json.loads(summary.read_text(encoding="utf-8")) if summary.is_file() else {}
    error = {"error": failed.error} if failed else {}
    return {"run": run.relative_to(folder).as_posix(), **overrides, **figures, **error}


def _job_order(run: Path) -> tuple[int, str]:
    return (int(run.name), "") if run.name.isdigit() else (1 << 31, run.name)
