"""What becomes of a run when the loss or the gradient of a step is not finite."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch

from slm.errors import UserError
from slm.notices import notice
from slm.training.figures import StepFigures
from slm.training.lit_module import LanguageModelModule
from slm.training.run.checkpoint_files import CHECKPOINTS, LAST_CHECKPOINT, newest_whole, step_file
from slm.training.run.checkpoints import Checkpoints
from slm.training.run.resume import Resumed
from slm.training.watch.rewind import NoValidation, rewind
from slm.training.watch.step_log import StepLog

BAD_STEPS_FILE = "bad_steps.jsonl"

OnBadStep = Literal["skip", "rewind", "stop"]

_LEAST_SCALE = 1.0  # of fp16's loss: below this it is not the scale that makes gradients overflow


class BadSteps(pl.Callback):
    """Counts and records the steps that were left out, and ends training or goes back as `on_bad_step` says.

    The update of a bad step is left out in any case (`leave_out_if_bad`); the step counts, so the schedule
    and the position in the data advance, weights and moments do not. Under fp16 the scaler leaves steps out while it
    looks for its scale: they are bad only when that is below 1. To be the first callback, so that no other saves or
    logs a step that is gone back from.

    Args:
        run: the run folder.
        on_bad_step, most_in_a_row: ``trainer.on_bad_step`` and ``max_bad_steps``; rewind counts until a new checkpoint.
        resumed_from: the checkpoint that training goes on from, if any.
        periods: of what reads a step's figures anyway; between, a GPU's are read one step late.

    Raises:
        UserError: from training; also if weights are not finite when they are to be saved: what is saved is good.
    """

    def __init__(
        self, run: Path, on_bad_step: OnBadStep, most_in_a_row: int, resumed_from: Path | None, periods: Sequence[int]
    ) -> None:
        self.run = run
        self.resumed_from = resumed_from
        self.on_bad_step = on_bad_step
        self.most_in_a_row = most_in_a_row
        self.periods = periods
        self.records = StepLog(run / BAD_STEPS_FILE)
        self.in_a_row = 0
        self._seen_step = -1
        self._rewinding = False
        self._go_back_from: int | None = None
        self._no_validation = NoValidation()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._seen_step = trainer.global_step
        if trainer.is_global_zero:
            self.records.go_on_after(self.records.lines)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._no_validation.next_batch(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step == self._seen_step:
            return
        self._seen_step = step
        logged = step == 1 or step >= trainer.max_steps
        read_anyway = logged or any(step % period == 0 for period in self.periods)
        self._settle(trainer, pl_module, wait=read_anyway)
        if self._go_back_from is not None:
            self._rewind(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._settle(trainer, pl_module, wait=True)
        if not _all_finite(pl_module):
            raise UserError(f"weights are not finite after step {trainer.global_step}; {self._how_to_go_on()}")
        if self.on_bad_step == "rewind":
            self.in_a_row = 0
        checkpoint["bad_steps"] = {"total": pl_module.bad_steps, "in_a_row": self.in_a_row, "lines": self.records.lines}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        saved = checkpoint.get("bad_steps")  # one who goes back still knows what happened
        if saved is not None and not self._rewinding:
            pl_module.bad_steps = saved["total"]
            self.in_a_row, self.records.lines = saved["in_a_row"], saved["lines"]

    def _settle(self, trainer: pl.Trainer, pl_module: pl.LightningModule, wait: bool) -> None:
        """Take the steps whose figures are known, on every rank alike."""
        assert isinstance(pl_module, LanguageModelModule)
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        for figures in pl_module.settle_steps(wait):
            if figures.is_finite:
                self.in_a_row = self.in_a_row if self.on_bad_step == "rewind" else 0
            elif scaler is None or scaler.get_scale() < _LEAST_SCALE:
                self._take(trainer, pl_module, figures)

    def _take(self, trainer: pl.Trainer, pl_module: LanguageModelModule, figures: StepFigures) -> None:
        pl_module.bad_steps += 1
        self.in_a_row += 1
        loss = pl_module.mean_over_ranks(figures.loss_sum, figures.count)
        kind = "gradient" if math.isfinite(loss) else "loss"
        if trainer.is_global_zero:
            self.records.add(figures, trainer.datamodule, kind=kind, loss=loss, action=self.on_bad_step)  # type: ignore[attr-defined]
        value = figures.grad_norm if kind == "gradient" else loss
        what = f"step {figures.step}: the {kind} is {value}, its update is left out ({self.records.file})"
        if self.on_bad_step == "stop":
            raise UserError(f"{what}; {self._how_to_go_on()}, or trainer.on_bad_step=skip goes on without it")
        if self.in_a_row > self.most_in_a_row:
            raise UserError(f"{what}; more than trainer.max_bad_steps={self.most_in_a_row} {self._how_to_go_on()}")
        notice(what)
        if self.on_bad_step == "rewind":
            self._go_back_from = figures.step

    def _rewind(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        left, self._go_back_from = self._go_back_from, None
        file = self._last_saved(trainer)
        if file is None:
            raise UserError(f"trainer.on_bad_step=rewind: no checkpoint to go back to from step {left}; use skip")
        self._rewinding = True
        rewind(trainer, pl_module, file)
        self._rewinding = False
        self._seen_step = trainer.global_step
        self._no_validation.until_next_batch(trainer)
        notice(f"back to step {trainer.global_step} from {left}; what was read since then is not read again")

    def _last_saved(self, trainer: pl.Trainer) -> Path | None:
        """Of the files there may be, that of the state this training saved last, or was resumed from: a run that was
        resumed from an earlier checkpoint has later ones, which are of no account."""
        checkpoints = next(c for c in trainer.callbacks if isinstance(c, Checkpoints))  # type: ignore[attr-defined]
        step = checkpoints.last_saved_step(trainer)
        folder = self.run / CHECKPOINTS
        files = [folder / LAST_CHECKPOINT, step_file(folder, step), *([self.resumed_from] if self.resumed_from else [])]
        return next((file for file in files if file.is_file() and Resumed(file).step == step), None)

    def _how_to_go_on(self) -> str:
        newest = newest_whole(self.run)
        saved = f"the last good state is {newest} (resume={self.run})" if newest else "no state was saved yet"
        return f"{saved}; look at the samples, lower optimizer.lr or raise scheduler.warmup_steps"


def _all_finite(pl_module: pl.LightningModule) -> bool:
    found = [torch.isfinite(p.detach()).all() for p in pl_module.parameters() if p.requires_grad]
    return bool(torch.stack(found).all())
