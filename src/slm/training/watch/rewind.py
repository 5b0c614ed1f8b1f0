"""Back to a checkpoint in the middle of training, and on with other data."""

from __future__ import annotations

import math
from pathlib import Path

import pytorch_lightning as pl

from slm.training.lightning_seams import restore
from slm.training.run.checkpoints import Checkpoints
from slm.training.run.random_state import RandomState
from slm.training.watch.csv_logger import CsvLogger
from slm.training.watch.train_metrics import TrainMetrics

_START_ANEW = (TrainMetrics, RandomState, Checkpoints)


def rewind(trainer: pl.Trainer, pl_module: pl.LightningModule, file: Path) -> None:
    """Put training back to the state in checkpoint `file`, all but the position in the data.

    To be called at the end of a batch that made an optimizer step, by the first callback, on all ranks. What is
    restored is what a resumed run restores, by the same code: weights, optimizer, schedule, scaler, callbacks, random
    states, sums of a later log row, the count of steps. Rows of ``metrics.csv`` after it go; the loader reads on.
    """
    restore(trainer, file)
    pl_module.on_train_start()
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, _START_ANEW):
            callback.on_train_start(trainer, pl_module)
    for logger in trainer.loggers:
        if isinstance(logger, CsvLogger):
            logger.go_back(trainer.global_step)


class NoValidation:
    """The step that was gone back to was validated when it was made: not again at the end of this batch."""

    def __init__(self) -> None:
        self._period: int | float | None = None

    def until_next_batch(self, trainer: pl.Trainer) -> None:
        """No validation until `next_batch`."""
        self._period = trainer.val_check_batch
        trainer.val_check_batch = math.inf

    def next_batch(self, trainer: pl.Trainer) -> None:
        """As it was."""
        if self._period is not None:
            trainer.val_check_batch, self._period = self._period, None
