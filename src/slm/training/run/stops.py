"""The end of a run, or of a part of one: planned, asked for by a signal, or by an exception.

To Lightning the callbacks that stop are `Checkpoint`s only because those are called after all others, in the order
given: `PlannedStop`, `Checkpoints`, `StopOnSignal`.
"""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.trainer.states import TrainerFn
from torch import distributed

from slm.errors import Stopped
from slm.notices import notice
from slm.training.lightning_seams import validate_now
from slm.training.run.heard_signals import StopSignals
from slm.training.run.step_callback import StepCallback


def is_scheduled(trainer: pl.Trainer, val_every: int) -> bool:
    """Whether a run that nothing stops validates after this step."""
    return trainer.global_step % val_every == 0 or trainer.global_step >= trainer.max_steps


class _AnyRank:
    """Whether something is so on any rank. Asked over a group of their own on the host, made when it is asked first:
    that of the gradients may be one of GPUs, to be waited for."""

    def __init__(self) -> None:
        self._group: Any = None

    def has(self, mine: bool, world_size: int) -> bool:
        """The answer of all ranks to `mine` of each; to be called by all of them at the same places."""
        if world_size == 1:
            return mine
        if self._group is None:
            self._group = distributed.new_group(backend="gloo")
        flag = torch.tensor(int(mine))
        distributed.all_reduce(flag, distributed.ReduceOp.MAX, group=self._group)
        return bool(flag)


class PlannedStop(Checkpoint):
    """Ends training once `last_step` optimizer steps are made, `seconds` have passed since the session's first one
    began, or a callback asks for it (``trainer.should_stop``): after a whole step, at the same one on all ranks.

    Lightning validates once more before it heeds ``should_stop``. Where that validation is off the schedule an unbroken
    run has none there, so it is of no account to the run that goes on: `Checkpoints` saves ahead of it, and loggers are
    silent while it is made. What it says is in ``summary.json``.
    """

    def __init__(self, last_step: int, val_every: int, seconds: float | None = None) -> None:
        self.last_step = last_step
        self.val_every = val_every
        self.seconds = seconds
        self.ends_at: float | None = None  # by the monotonic clock
        self._any_rank = _AnyRank()
        self._step = 0  # the last whole one
        self._asked = False
        self._silent: list[Any] | None = None  # loggers, while nothing is to be logged

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, state: dict[str, Any]) -> None:
        if state["global_step"] >= self.last_step:  # it had come to its end already
            trainer.should_stop = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._step = trainer.global_step

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        """The time counts from here: what comes before (data, a validation that an earlier session left) is no step."""
        if self.seconds is not None and self.ends_at is None:
            self.ends_at = time.monotonic() + self.seconds
            notice(f"trainer.max_time: this session trains for {_in_words(self.seconds)} from here")

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any, **__: Any) -> None:
        """Stop if this batch completed a step after which to do so; else put off what a callback asked for."""
        self._asked |= trainer.should_stop
        is_whole = trainer.global_step != self._step
        self._step = trainer.global_step
        trainer.should_stop = is_whole and (self._step >= self.last_step or self._is_over(trainer) or self._asked)

    def _is_over(self, trainer: pl.Trainer) -> bool:
        if self.ends_at is None or not self._any_rank.has(time.monotonic() >= self.ends_at, trainer.world_size):
            return False
        notice(f"trainer.max_time: {_in_words(self.seconds or 0)} are over; stops after step {trainer.global_step}")
        return True

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on nothing is logged if only the stop asks for this validation."""
        if trainer.state.fn == TrainerFn.FITTING and trainer.should_stop and not is_scheduled(trainer, self.val_every):
            self._silent, trainer.loggers = trainer.loggers, []

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._silent is not None:
            trainer.loggers, self._silent = self._silent, None

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.on_train_end(trainer, pl_module)


class StopOnSignal(StepCallback, Checkpoint):
    """Saves and raises `Stopped` once a signal has come.

    A validation that is due after the step, or under way, is not waited for: the checkpoint says that it is due, and
    the run that goes on from there begins with it. So that run repeats an unbroken one exactly. A run at its last step
    goes on to its end instead. All ranks stop at the same step; they finish a validation first, since they have not
    equally many batches of it. `save` saves the state, unless that of this step is saved already.
    """

    def __init__(self, signals: StopSignals, val_every: int, save: Callable[[pl.Trainer], None]) -> None:
        self.signals = signals
        self.val_every = val_every
        self.save = save
        self._validation_due = False  # the state is of before the validation of its step
        self._any_rank = _AnyRank()

    def state_dict(self) -> dict[str, Any]:
        return {"validation_due": self._validation_due}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._validation_due = state_dict["validation_due"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on signals wait for the end of a step; of the run, once there is none left: to end while Lightning
        takes its loops apart makes it fail. Make up for the validation that an earlier run left."""
        super().on_train_start(trainer, pl_module)
        self.signals.deferred = True
        due, self._validation_due = self._validation_due, False
        if due:
            validate_now(trainer)

    def on_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.should_stop:
            self._stop_if_asked(trainer, trainer.enable_validation and trainer.global_step % self.val_every == 0)

    def on_validation_batch_end(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        """Stop at once: the step was made, and its validation can be made again."""
        if trainer.world_size == 1 and not trainer.should_stop:
            self._stop_if_asked(trainer, validation_due=True)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.should_stop:
            self._stop_if_asked(trainer, validation_due=False)

    def _stop_if_asked(self, trainer: pl.Trainer, validation_due: bool) -> None:
        """If a signal has come, to whatever rank; called by all ranks at the same places."""
        if self._any_rank.has(self.signals.received is not None, trainer.world_size):
            self._validation_due = validation_due
            self.save(trainer)
            raise Stopped(f"stopped by {self.signals.received or 'a signal'} after step {trainer.global_step}")


class BrokenOff(pl.Callback):
    """Notes in `where` what was under way when an exception ended the run."""

    def __init__(self) -> None:
        self.where = "before the first step"

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.where = ""

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if not self.where:
            step = trainer.global_step
            self.where = f"in the validation after step {step}" if trainer.validating else f"in step {step + 1}"


def _in_words(seconds: float) -> str:
    """``1:30:00``, ``2 days, 0:00:00``; below ten seconds with their fraction."""
    return str(timedelta(seconds=round(seconds))) if seconds >= 10 else f"{seconds:g} s"
