"""A multirun of another sweeper than ours (Hydra's basic one, with any launcher): what becomes of jobs that fail, and
the result as one table."""

import json
import os
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from slm.cli.command import USER_ERROR_STATUS, fail
from slm.data.store.processes import end_with
from slm.files.csv_table import write_rows
from slm.files.reading import read_json_object
from slm.files.writing import new_file
from slm.masking import masked, masked_argument
from slm.notices import notice
from slm.study.recorded_settings import key_values
from slm.study.run_record import FAILED_FILE, TABLE_FILE
from slm.training.run.folder import RECORD_FILE, SUMMARY_FILE, read_record

# of the environment: the process that launches the jobs, and the keys in which they differ
_LAUNCHER, _SWEPT = "SLM_LAUNCHER", "SLM_SWEPT"


class SweepTable(Callback):
    """Keeps ``sweep.csv`` of a multirun: a row a run, failed ones too, of its overrides and its figures; written anew
    after every job, so that a job that fails takes no other's row with it. Our own sweeper has no jobs of Hydra's."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        params = [str(key) for key in config.hydra.sweeper.get("params") or {}]  # that the sweeper's own settings name
        parsed = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
        swept = [override.get_key_element() for override in parsed if override.is_sweep_override()]
        os.environ.update({_LAUNCHER: str(os.getpid()), _SWEPT: " ".join([*params, *swept])})

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        if config.hydra.mode == RunMode.MULTIRUN:
            _mask(Path(config.hydra.sweep.dir) / "multirun.yaml")
            (Path(config.hydra.runtime.output_dir) / FAILED_FILE).unlink(missing_ok=True)
            # a worker of joblib whose launcher was killed would wait for its next job, in half a gigabyte
            if os.environ.get(_LAUNCHER) == str(os.getppid()):
                end_with(os.getppid())

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        if config.hydra.mode == RunMode.MULTIRUN:
            _write_table(Path(config.hydra.sweep.dir))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        if config.hydra.runtime.choices["hydra/sweeper"] == "study":
            return
        folder = Path(config.hydra.sweep.dir)
        n_rows, failed = _write_table(folder), _failed_jobs(folder)  # two may have ended at the same moment
        if n_rows:
            notice(f"sweep: {n_rows} runs, {len(failed)} failed, table in {folder / TABLE_FILE}")
        if failed:
            status = USER_ERROR_STATUS if all(job["mistake"] for job in failed.values()) else 1
            lines = [_line(job, failed[job]) for job in sorted(failed, key=_job_order)]
            fail("\n".join(lines), status)


def job_failed(message: str | None, error: Exception) -> None:
    """Tell of the job under way that it failed, and note it in its folder; with no `message` it is a bug."""
    job: Any = HydraConfig.get()
    if message is None:
        traceback.print_exception(error)
    overrides = [masked_argument(str(override)) for override in job.overrides.task]
    keys = os.environ.get(_SWEPT, "").split()
    swept = [override for override in overrides if override.partition("=")[0] in keys]
    told = message or f"{type(error).__name__}: {error}"
    failed = {"overrides": overrides, "swept": swept, "error": told, "mistake": message is not None}
    folder = Path(job.runtime.output_dir)
    notice(f"{_line(folder, failed)}; the other jobs go on")
    (folder / FAILED_FILE).write_text(json.dumps(failed, ensure_ascii=False, indent=1), encoding="utf-8")


def _failed_jobs(sweep: Path) -> dict[Path, dict[str, Any]]:
    return {file.parent: read_json_object(file) for file in sweep.rglob(FAILED_FILE)}


def _line(folder: Path, failed: Mapping[str, Any]) -> str:
    return f"job {folder.name} ({' '.join(failed['swept'])}): {'; '.join(failed['error'].splitlines())}"


def _mask(file: Path) -> None:
    """Hydra wrote it before the first job; several jobs may do this at a time."""
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
    """How many rows were written."""
    failed = _failed_jobs(folder)
    runs = sorted({*failed, *(file.parent for file in folder.rglob(RECORD_FILE))}, key=_job_order)
    rows = [_row(folder, run, failed.get(run)) for run in runs]
    if rows:
        write_rows(folder / TABLE_FILE, rows)
    return len(rows)


def _row(folder: Path, run: Path, failed: Mapping[str, Any] | None) -> dict[str, Any]:
    overrides = key_values(failed["overrides"] if failed else read_record(run)["overrides"])
    summary = run / SUMMARY_FILE
    figures = json.loads(summary.read_text(encoding="utf-8")) if summary.is_file() else {}
    error = {"error": failed["error"]} if failed else {}
    return {"run": run.relative_to(folder).as_posix(), **overrides, **figures, **error}


def _job_order(run: Path) -> tuple[int, str]:
    return (int(run.name), "") if run.name.isdigit() else (1 << 31, run.name)
