"""What becomes of a run when the loss or the gradient of a step is not finite."""

import math
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from slm.errors import UserError
from slm.notices import notice
from slm.training.config import TrainerConfig
from slm.training.figures import StepFigures, Totals
from slm.training.lightning_seams import is_logged, restore
from slm.training.lit_module import LanguageModelModule
from slm.training.run.checkpoint_files import CHECKPOINTS, LAST_CHECKPOINT, step_file
from slm.training.run.checkpoints import Checkpoints
from slm.training.run.random_state import RandomState
from slm.training.run.resume import newest_whole
from slm.training.run.resume_checks import Resumed
from slm.training.run.step_callback import StepCallback
from slm.training.watch.csv_logger import CsvLogger
from slm.training.watch.step_log import StepLog
from slm.training.watch.train_metrics import TrainMetrics

_LEAST_SCALE = 1.0  # of fp16's loss: below this it is not the scale that makes gradients overflow


class BadSteps(StepCallback):
    """Counts and records the steps that were left out, and ends training or goes back as ``on_bad_step`` says.

    The update of a bad step is left out in any case (`leave_out_if_bad`); the step counts, so the schedule
    and the position in the data advance, weights and moments do not. Under fp16 the scaler leaves steps out while it
    looks for its scale: they are bad only when that is below 1. To be the first callback, so that no other saves or
    logs a step that is gone back from.

    With ``rewind``, ``max_bad_steps`` counts until a new checkpoint. `resumed_from` is the one that training goes on
    from, `checkpoints` knows which was saved last. Training ends with a `UserError`, also if weights are not finite
    when they are to be saved: what is saved is good.
    """

    def __init__(self, settings: TrainerConfig, run: Path, resumed_from: Path | None, checkpoints: Checkpoints) -> None:
        self.settings = settings
        self.run = run
        self.resumed_from = resumed_from
        self.checkpoints = checkpoints
        self.records = StepLog("bad_steps.jsonl")
        self.in_a_row = 0
        self._go_back_from: int | None = None
        self._val_period: int | float | None = None  # to be put back

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self.records.open(trainer)

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        if self._val_period is not None:
            trainer.val_check_batch, self._val_period = self._val_period, None

    def on_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """On a GPU a step's figures are read one step late, but for those that somebody waits for anyway."""
        step, settings = trainer.global_step, self.settings
        saved_or_validated = step % settings.val_every == 0 or self.checkpoints.is_due(trainer)
        self._settle(trainer, pl_module, saved_or_validated or is_logged(step, settings.log_every, trainer.max_steps))
        if self._go_back_from is not None:
            self._rewind(trainer, pl_module, self._go_back_from)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, state: dict[str, Any]) -> None:
        self._settle(trainer, pl_module, wait=True)
        are_finite = [torch.isfinite(p.detach()).all() for p in pl_module.parameters() if p.requires_grad]
        if not torch.stack(are_finite).all():
            raise UserError(f"weights are not finite after step {trainer.global_step}; {self._how_to_go_on()}")
        if self.settings.on_bad_step == "rewind":
            self.in_a_row = 0
        state["bad_steps"] = {"total": pl_module.bad_steps, "in_a_row": self.in_a_row, "lines": self.records.lines}

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, state: dict[str, Any]) -> None:
        saved = state.get("bad_steps")
        if saved is not None and not self.has_begun:  # one who goes back still knows what happened
            pl_module.bad_steps = saved["total"]
            self.in_a_row, self.records.lines = saved["in_a_row"], saved["lines"]

    def _settle(self, trainer: pl.Trainer, pl_module: pl.LightningModule, wait: bool) -> None:
        """Take the steps whose figures are known, on every rank alike."""
        assert isinstance(pl_module, LanguageModelModule)
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        for figures in pl_module.settle_steps(wait):
            if figures.is_finite:
                self.in_a_row = self.in_a_row if self.settings.on_bad_step == "rewind" else 0
            elif scaler is None or scaler.get_scale() < _LEAST_SCALE:
                self._take(trainer, pl_module, figures)

    def _take(self, trainer: pl.Trainer, pl_module: LanguageModelModule, figures: StepFigures) -> None:
        pl_module.bad_steps += 1
        self.in_a_row += 1
        action, most = self.settings.on_bad_step, self.settings.max_bad_steps
        loss = Totals((figures.loss_sum,), figures.count).over(pl_module.sum_over_ranks).loss
        kind, value = ("gradient", figures.grad_norm) if math.isfinite(loss) else ("loss", loss)
        if trainer.is_global_zero:
            self.records.add(figures, trainer, kind=kind, loss=loss, action=action)
        what = f"step {figures.step}: the {kind} is {value}, its update is left out ({self.records.file})"
        if action == "stop":
            raise UserError(f"{what}; {self._how_to_go_on()}, or trainer.on_bad_step=skip goes on without it")
        if self.in_a_row > most:
            raise UserError(f"{what}; more than trainer.max_bad_steps={most} {self._how_to_go_on()}")
        notice(what)
        if action == "rewind":
            self._go_back_from = figures.step

    def _rewind(self, trainer: pl.Trainer, pl_module: pl.LightningModule, left: int) -> None:
        """Put training back to the last checkpoint, all but the position in the data: the loader reads on.

        What is restored is what a resumed run restores, by the same code. Rows of ``metrics.csv`` after it go. The step
        that is gone back to was validated when it was made: not again at the end of this batch.
        """
        self._go_back_from = None
        file = self._last_saved(trainer)
        if file is None:
            raise UserError(f"trainer.on_bad_step=rewind: no checkpoint to go back to from step {left}; use skip")
        restore(trainer, file)
        pl_module.on_train_start()
        self.seen_step = trainer.global_step
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, TrainMetrics | RandomState | Checkpoints):
                callback.on_train_start(trainer, pl_module)
        for logger in trainer.loggers:
            if isinstance(logger, CsvLogger):
                logger.go_back(trainer.global_step)
        self._val_period, trainer.val_check_batch = trainer.val_check_batch, math.inf
        notice(f"back to step {trainer.global_step} from {left}; what was read since then is not read again")

    def _last_saved(self, trainer: pl.Trainer) -> Path | None:
        """Of the files there may be, that of the state this training saved last, or was resumed from: a run that was
        resumed from an earlier checkpoint has later ones, which are of no account."""
        step = self.checkpoints.last_saved_step(trainer)
        folder = self.run / CHECKPOINTS
        files = [folder / LAST_CHECKPOINT, step_file(folder, step), *([self.resumed_from] if self.resumed_from else [])]
        return next((file for file in files if file.is_file() and Resumed(file).step == step), None)

    def _how_to_go_on(self) -> str:
        newest = newest_whole(self.run)
        saved = f"the last good state is {newest} (resume={self.run})" if newest else "no state was saved yet"
        return f"{saved}; look at the samples, lower optimizer.lr or raise scheduler.warmup_steps"
