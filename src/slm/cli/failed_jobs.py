"""Jobs of a multirun that failed: told at once and once more at the end, and noted where their run would be.

The others go on. A sweeper that minimises is given None for one, which no loss is, and takes it for a failed trial.
"""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slm.files.reading import read_json_object
from slm.masking import masked_argument
from slm.notices import notice

FAILED_FILE = "failed.json"
_SWEPT = "SLM_SWEPT"  # of the environment: keys


@dataclass(frozen=True)
class FailedJob:
    """Attributes:
    folder: the job's.
    overrides: all of its settings.
    swept: those in which it differs from others.
    error: in words.
    mistake: of the user, and no bug.
    """

    folder: Path
    overrides: Sequence[str]
    swept: Sequence[str]
    error: str
    mistake: bool

    @property
    def line(self) -> str:
        """Which job, and what was wrong."""
        return f"job {self.folder.name} ({' '.join(self.swept)}): {'; '.join(self.error.splitlines())}"


def remember_swept(overrides: Sequence[str], params: Sequence[str]) -> None:
    """Note for the jobs, in whatever process, what differs between them.

    Args:
        overrides: of the multirun, in Hydra's grammar.
        params: keys that the sweeper's own settings name.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides(list(overrides))
    keys = [override.get_key_element() for override in parsed if override.is_sweep_override()]
    os.environ[_SWEPT] = " ".join([*params, *keys])


def job_failed(message: str | None, error: Exception) -> None:
    """Tell of the job under way that it failed, and note it in its folder.

    Args:
        message: of a mistake; None for a bug, which is told with its traceback.
        error: what was raised.
    """
    from hydra.core.hydra_config import HydraConfig

    job: Any = HydraConfig.get()
    if message is None:
        traceback.print_exception(error)
    told = message or f"{type(error).__name__}: {error}"
    overrides = [masked_argument(str(override)) for override in job.overrides.task]
    keys = os.environ.get(_SWEPT, "").split()
    swept = [override for override in overrides if override.partition("=")[0] in keys]
    failed = FailedJob(Path(job.runtime.output_dir), overrides, swept, told, message is not None)
    notice(f"{failed.line}; the other jobs go on")
    content = {"overrides": overrides, "swept": swept, "error": told, "mistake": failed.mistake}
    (failed.folder / FAILED_FILE).write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")


def failed_jobs(folder: Path) -> list[FailedJob]:
    """Those of the sweep in `folder`."""
    found = [(file.parent, read_json_object(file)) for file in folder.rglob(FAILED_FILE)]
    return [FailedJob(job, said["overrides"], said["swept"], said["error"], said["mistake"]) for job, said in found]
