"""Every use that is made of Lightning's private parts, here alone: what each changes, and why it must.

`tests/training/test_lightning_seams.py` fails where Lightning changes one of them.
"""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.trainer.connectors.logger_connector.logger_connector import _LoggerConnector
from pytorch_lightning.trainer.connectors.signal_connector import _SignalConnector
from pytorch_lightning.trainer.states import TrainerFn

# ---- rows of logs ----


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


def opened_experiment(logger: WandbLogger) -> Any:
    """A logger's run on its server, if it has begun one: to ask for `experiment` would begin it."""
    return logger._experiment


# ---- stopping ----


def leave_signals_alone(trainer: pl.Trainer) -> None:
    """Keep Lightning's own handlers out: they stop without saving, one rank alone asks the others from within the
    handler, and under Slurm a job is put back into the queue unasked."""
    trainer._signal_connector = _NoHandlers(trainer)


class _NoHandlers(_SignalConnector):
    def register_signal_handlers(self) -> None:
        """None."""


def validate_now(trainer: pl.Trainer) -> None:
    """Run the validation of a fit outside of its schedule, from the first batch; Lightning has no word for that.

    To be called before the first training step.
    """
    loop = trainer.fit_loop.epoch_loop.val_loop
    loop.restarting = False
    trainer.validating = True
    loop.run()
    trainer.training = True


# ---- counts of batches ----


def without_stale_counts(checkpoint: dict[str, Any]) -> None:
    """Make Lightning's own counts in a checkpoint a function of its step: after some resumes one is less, and a
    validation that was cut short leaves its own. Nothing here reads them, but equal runs shall have equal files."""
    loop = checkpoint["loops"]["fit_loop"]
    loop["epoch_loop.state_dict"]["_batches_that_stepped"] = checkpoint["global_step"]
    for counts in (loop["epoch_loop.val_loop.batch_progress"][kind] for kind in ("total", "current")):
        counts.update(dict.fromkeys(counts, 0))


def count_in_micro_batches(checkpoint: dict[str, Any], per_step: int) -> None:
    """Make the batches that a checkpoint counts those of its steps at `per_step` micro-batches each: Lightning counts
    micro-batches, of which a step may now take more or fewer (another batch, other ranks)."""
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    for counts in (progress["total"], progress["current"]):
        counts.update(dict.fromkeys(counts, checkpoint["global_step"] * per_step))


# ---- going back ----


def restore(trainer: pl.Trainer, file: Path) -> None:
    """Put a fit under way back to the state in checkpoint `file`, by the code that resumes one: weights, optimizer,
    schedule, scaler, callbacks and the count of steps, but neither the loaders nor the random states.

    To be called at the end of a batch that made an optimizer step.
    """
    connector = trainer._checkpoint_connector
    checkpoint = trainer.strategy.load_checkpoint(file)
    connector._loaded_checkpoint = checkpoint
    connector.restore_model()
    connector.restore_callbacks()
    connector.restore_precision_plugin_state()
    connector.restore_optimizers_and_schedulers()
    saved, loop = checkpoint["loops"]["fit_loop"], trainer.fit_loop.epoch_loop
    counts = loop.automatic_optimization.optim_progress
    counts.load_state_dict(saved["epoch_loop.automatic_optimization.optim_progress"])
    loop.batch_progress.load_state_dict(saved["epoch_loop.batch_progress"])
    loop.batch_progress.total.completed -= 1  # what Lightning adds once the hooks of this batch are done
    loop.batch_progress.current.completed -= 1
    loop._batches_that_stepped = trainer.global_step - 1
    connector.resume_end()
