"""What callbacks and models log by Lightning's ``log``, under the step that the rest is logged under."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.trainer.connectors.logger_connector.logger_connector import _LoggerConnector
from pytorch_lightning.trainer.states import TrainerFn


def is_logged(step: int, log_every: int, last_step: int) -> bool:
    """Whether the optimizer step, from 1 on, has a row: the first, every `log_every` and the last."""
    return step == 1 or step % log_every == 0 or step >= last_step


def log_under_own_steps(trainer: pl.Trainer) -> None:
    """Let rows of one optimizer step be one row.

    Lightning counts from 0 in training and from 1 in validation, takes batches of validation for steps, adds an epoch,
    and logs once more wherever a run is stopped.
    """
    trainer._logger_connector = _OwnSteps(trainer)


class _OwnSteps(_LoggerConnector):
    @property
    def should_update_logs(self) -> bool:
        """At the steps of `is_logged`."""
        trainer = self.trainer
        if trainer.state.fn != TrainerFn.FITTING or not trainer.training:
            return super().should_update_logs
        step = trainer.fit_loop.epoch_loop._batches_that_stepped + 1  # of the step that is under way, or just made
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        return is_logged(step, every, trainer.max_steps)

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """At the optimizer step; one of the metric's own name is no other step."""
        if self.trainer.state.fn == TrainerFn.FITTING:
            metrics, step = {k: v for k, v in metrics.items() if k != "step"}, self.trainer.global_step
        super().log_metrics(metrics, step)
