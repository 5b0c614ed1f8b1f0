"""Trackio as a logger: W&B's interface over a SQLite file in the run folder, with no account and no server."""

import contextlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.logger import rank_zero_experiment
from lightning_fabric.utilities.rank_zero import rank_zero_only
from pytorch_lightning.loggers import Logger

from slm.extras import require
from slm.notices import notice

_FOLDER = "TRACKIO_DIR"  # read once, when trackio is imported


class TrackioLogger(Logger):
    """A run of `project`, called `run`, in files in `folder`; a resumed one goes on under its name. Other settings are
    arguments of ``trackio.init``."""

    def __init__(self, folder: Path, project: str, run: str, settings: Mapping[str, Any]) -> None:
        super().__init__()
        os.environ[_FOLDER] = os.environ.get(_FOLDER) or str(folder.absolute())
        self._trackio = require("trackio", "trackio", "logger=trackio")
        self._project, self._run_name, self._settings = project, run, dict(settings)
        self._run: Any = None

    @property
    def name(self) -> str:
        return self._project

    @property
    def version(self) -> str:
        """What it is resumed by."""
        return self._run_name

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run of trackio, which prints on stdout what is said here in one line."""
        if self._run is None:
            with contextlib.redirect_stdout(io.StringIO()):
                own = {"auto_log_cpu": False, "auto_log_gpu": False, "embed": False, "resume": "allow"}
                self._run = self._trackio.init(self._project, name=self._run_name, **{**own, **self._settings})
            notice(f"trackio: {_FOLDER}={self._trackio.TRACKIO_DIR} trackio show --project {self._project}")
        return self._run

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """They go with the first row."""
        self.experiment.config.update(params)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.experiment.log(dict(metrics), step=step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what waits, and end the run with the training: the next one of this process begins its own."""
        if self._run is not None:
            with contextlib.redirect_stdout(io.StringIO()):
                self._trackio.finish()
            self._run = None
