"""What is said and done once, as a session of training starts."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from slm.notices import notice
from slm.training.watch.csv_logger import STEP, read_metrics


class FrozenGarbage(pl.Callback):
    """What exists when training starts is set aside: a collection looks at what the steps made, not at half a million
    objects of libraries that will not go away. Nothing is switched off, so cycles are still found."""

    def on_train_start(self, *_: Any) -> None:
        gc.collect()
        gc.freeze()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        gc.unfreeze()


class LoggedSettings(pl.Callback):
    """Hands the settings to every logger ahead of the first metric: Lightning would write an empty ``hparams.yaml``
    next.

    Args:
        settings: nested plain types, nothing secret in them.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = dict(settings)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        for logger in trainer.loggers:
            logger.log_hyperparams(self.settings)


def say_batch(windows: int, devices: int, record: Mapping[str, Any]) -> None:
    """Without ``trainer.global_batch_size`` more devices make larger steps, of more `windows`: say so; `record` is
    ``run.json`` of a run that is gone on with, {} of a new one."""
    sessions = record.get("sessions") or [{}]
    before = sessions[-1].get("global_batch_size", windows)
    if before != windows:
        keep = f"trainer.global_batch_size={before} keeps that"
        notice(f"a step takes {windows} windows from here on, {before} until now; {keep}")
    elif devices > 1:
        notice(f"a step takes {windows} windows, over {devices} devices (trainer.global_batch_size sets how many)")


def say_what_is_made_again(table: Path, resumed_step: int) -> None:
    """Rows of ``metrics.csv`` that are of after the checkpoint go."""
    steps = [int(row[STEP]) for row in read_metrics(table)[1] if row[STEP].isdecimal()] if table.is_file() else []
    if later := [step for step in steps if step > resumed_step]:
        rows = f"{len(later)} row{'s' * (len(later) > 1)}"
        notice(f"{table} goes to step {max(later)}: {rows} of after step {resumed_step} are dropped and made again")
