"""The end of a run that a signal asks to stop: after the optimizer step under way, with its state saved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from slm.errors import Stopped
from slm.training.run.any_rank import AnyRank
from slm.training.run.stop_signals import StopSignals


class StopOnSignal(Checkpoint):
    """Saves and raises `Stopped` once a signal has come.

    A validation that is due after the step, or under way, is not waited for: the checkpoint says that it is due, and
    the run that goes on from there begins with it. So that run repeats an unbroken one exactly. A run at its last step
    goes on to its end instead. All ranks stop at the same step; they finish a validation first, since they have not
    equally many batches of it.

    To Lightning it is a `Checkpoint` only because those are called after all other callbacks, in the order given.

    Args:
        signals: what has come.
        val_every: period of validation in optimizer steps.
        save: saves the state, unless that of this step is saved already.
    """

    def __init__(self, signals: StopSignals, val_every: int, save: Callable[[pl.Trainer], None]) -> None:
        self.signals = signals
        self.val_every = val_every
        self.save = save
        self._validation_due = False
        self._step = 0  # the last whole one
        self._any_rank = AnyRank()

    def state_dict(self) -> dict[str, Any]:
        """Whether the state is of before the validation of its step."""
        return {"validation_due": self._validation_due}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self._validation_due = state_dict["validation_due"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on signals wait for the end of a step; of the run, once there is none left: to end while Lightning
        takes its loops apart makes it fail. Make up for the validation that an earlier run left."""
        self._step = trainer.global_step
        self.signals.deferred = True
        due, self._validation_due = self._validation_due, False
        if due:
            loop = trainer.fit_loop.epoch_loop.val_loop
            loop.restarting = False  # it begins anew
            trainer.validating = True
            loop.run()
            trainer.training = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop if this batch completed a step."""
        if trainer.global_step == self._step or trainer.should_stop:
            return
        self._step = trainer.global_step
        if self._asked(trainer):
            self._stop(trainer, validation_due=trainer.enable_validation and self._step % self.val_every == 0)

    def on_validation_batch_end(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        """Stop at once: the step was made, and its validation can be made again."""
        if trainer.world_size == 1 and not trainer.should_stop and self._asked(trainer):
            self._stop(trainer, validation_due=True)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop after it where it was not cut short."""
        if not trainer.should_stop and self._asked(trainer):
            self._stop(trainer, validation_due=False)

    def _asked(self, trainer: pl.Trainer) -> bool:
        """Whether a signal has come, to whatever rank; asked by all ranks at the same places."""
        return self._any_rank.has(self.signals.received is not None, trainer.world_size)

    def _stop(self, trainer: pl.Trainer, validation_due: bool) -> None:
        self._validation_due = validation_due
        self.save(trainer)
        raise Stopped(f"stopped by {self.signals.received or 'a signal'} after step {trainer.global_step}")
