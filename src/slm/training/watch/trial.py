"""A run that is a trial of a sweep: what it tells the sweeper, and what it is told."""

import json
import os
import socket
import time
from dataclasses import dataclass, field
from typing import Any, cast

import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn

from slm.training.lit_module import LanguageModelModule
from slm.training.run.stops import is_scheduled

CHANNEL = "SLM_TRIAL_CHANNEL"
"""Of the environment: the number of the socket to the sweeper."""


def is_trial() -> bool:
    """Whether a sweeper of ours has started this process."""
    return CHANNEL in os.environ


def trial_callbacks(val_every: int) -> list[pl.Callback]:
    """What a run that is a trial has more than others; nothing for a run that is none."""
    number = os.environ.get(CHANNEL)
    if number is None:
        return []
    is_first = os.environ.get("LOCAL_RANK", "0") == "0"  # the others of its ranks have the variable alone
    return [TrialReports(socket.socket(fileno=os.dup(int(number))) if is_first else None, val_every)]


@dataclass
class TrialReports(pl.Callback):
    """Tells the sweeper of every validation on the schedule and waits for its word, which ends training there or not.
    The run is as exact as without: what ended so goes on as any that a callback ended."""

    to_sweeper: socket.socket | None
    val_every: int
    _seconds: float = field(default=0.0, init=False)  # in training, without validations
    _since: float = field(default=0.0, init=False)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._since = time.perf_counter()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._seconds += time.perf_counter() - self._since

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING and is_scheduled(trainer, self.val_every):
            loss = cast(LanguageModelModule, pl_module).val_metrics["loss"]
            asked = {"step": trainer.global_step, "steps": trainer.max_steps, "seconds": self._seconds, "loss": loss}
            is_told = trainer.strategy.broadcast(
                self.to_sweeper is not None and _is_told_to_stop(self.to_sweeper, asked)
            )
            trainer.should_stop = is_told or trainer.should_stop
        self._since = time.perf_counter()


def _is_told_to_stop(sweeper: socket.socket, asked: dict[str, Any]) -> bool:
    """Where nobody answers the sweeper has ended, and this process is about to."""
    sweeper.sendall(json.dumps(asked).encode() + b"\n")
    with sweeper.makefile("rb") as answers:
        answer = answers.readline()
    return bool(answer) and bool(json.loads(answer)["stop"])
