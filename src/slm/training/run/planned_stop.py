"""The end of a run, or of a part of one, that was planned: after so many steps, or so much time."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.trainer.states import TrainerFn

from slm.notices import notice
from slm.training.run.any_rank import AnyRank
from slm.training.time_budget import in_words


def is_scheduled(trainer: pl.Trainer, val_every: int) -> bool:
    """Whether a run that nothing stops validates after this step."""
    return trainer.global_step % val_every == 0 or trainer.global_step >= trainer.max_steps


class PlannedStop(Checkpoint):
    """Ends training once `last_step` optimizer steps are made, `seconds` have passed since the first one began, or a
    callback asks for it (``trainer.should_stop``): after a whole step in any case, at the same one on all ranks.

    Lightning validates once more before it heeds ``should_stop``. Where that validation is off the schedule an unbroken
    run has none there, so it is of no account to the run that goes on: `Checkpoints` saves ahead of it, and loggers are
    silent while it is made. What it says is in ``summary.json``.

    To Lightning it is a `Checkpoint` only because those are called after all other callbacks, in the order given; to
    be the one before `Checkpoints`.

    Args:
        last_step: of this session.
        val_every: period of validation in optimizer steps.
        seconds: of this session's training; None for any number.
    """

    def __init__(self, last_step: int, val_every: int, seconds: float | None = None) -> None:
        self.last_step = last_step
        self.val_every = val_every
        self.seconds = seconds
        self.ends_at: float | None = None  # by the monotonic clock
        self._any_rank = AnyRank()
        self._step = 0  # the last whole one
        self._asked = False
        self._silent: list[Any] | None = None  # loggers, while nothing is to be logged

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """A run that had come to its end already has no step left."""
        if checkpoint["global_step"] >= self.last_step:
            trainer.should_stop = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._step = trainer.global_step
        if self.seconds is not None:
            self.ends_at = time.monotonic() + self.seconds
            notice(f"trainer.max_time: this session trains for {in_words(self.seconds)} from here")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop if this batch completed a step after which to do so; else put off what a callback asked for."""
        self._asked |= trainer.should_stop
        is_whole = trainer.global_step != self._step
        self._step = trainer.global_step
        trainer.should_stop = is_whole and (self._step >= self.last_step or self._is_over(trainer) or self._asked)

    def _is_over(self, trainer: pl.Trainer) -> bool:
        if self.ends_at is None or not self._any_rank.has(time.monotonic() >= self.ends_at, trainer.world_size):
            return False
        notice(f"trainer.max_time: {in_words(self.seconds or 0)} are over; stops after step {trainer.global_step}")
        return True

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on nothing is logged if only the stop asks for this validation."""
        if trainer.state.fn == TrainerFn.FITTING and trainer.should_stop and not is_scheduled(trainer, self.val_every):
            self._silent, trainer.loggers = trainer.loggers, []

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Loggers close their files."""
        if self._silent is not None:
            trainer.loggers, self._silent = self._silent, None

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Loggers close their files."""
        self.on_train_end(trainer, pl_module)
