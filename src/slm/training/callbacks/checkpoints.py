"""Checkpoints every N steps, the newest and the best, and the bundle of the best weights."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from slm.models.modules.lora import merged_state
from slm.training.checkpoint_files import BEST_CHECKPOINT, LAST_CHECKPOINT, step_file


class Checkpoints(Checkpoint):
    """Keeps ``step_*.ckpt`` every `save_every` optimizer steps, ``last.ckpt`` and ``best.ckpt``.

    Each file is whole: written beside its place and renamed. Names that stand for the same step
    share one file on disk.

    Args:
        folder: where checkpoints go.
        save_every, val_every: periods in optimizer steps.
        keep: how many ``step_*.ckpt`` stay, newest first; 0 for all.
        write_bundle: called with the weights and facts of each new best model.
    """

    def __init__(
        self,
        folder: Path,
        save_every: int,
        val_every: int,
        keep: int,
        write_bundle: Callable[[dict[str, Tensor], dict[str, Any]], None],
    ) -> None:
        self.folder = folder
        self.save_every = save_every
        self.val_every = val_every
        self.keep = keep
        self.write_bundle = write_bundle
        self.best_loss: float | None = None
        self.best_step: int | None = None
        self._saved_step = -1  # the step that LAST_CHECKPOINT holds

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What was resumed from needs no saving."""
        self._saved_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where the period says so; a step that is validated too is saved after that."""
        step = trainer.global_step
        due = step % self.save_every == 0 and step != self._saved_step
        if due and step % self.val_every and not trainer.should_stop:
            self._save(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save, and keep the model if it is the best so far."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        loss: float = pl_module.val_metrics["loss"]  # type: ignore[assignment, index]
        is_best = self.best_loss is None or math.isnan(self.best_loss) or loss < self.best_loss
        if is_best:
            self.best_loss, self.best_step = loss, trainer.global_step
        if is_best or trainer.should_stop or trainer.global_step % self.save_every == 0:
            self._save(trainer)
        if is_best and trainer.is_global_zero:
            _link(self.folder / LAST_CHECKPOINT, self.folder / BEST_CHECKPOINT)
            self.write_bundle(_weights(pl_module), {"step": self.best_step, **pl_module.val_metrics})  # type: ignore[dict-item]

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The end of a run is always saved; without any validation its weights are the bundle's."""
        self.save_now(trainer)
        if self.best_step is None and trainer.is_global_zero:
            self.write_bundle(_weights(pl_module), {"step": trainer.global_step})

    def save_now(self, trainer: pl.Trainer) -> None:
        """Save, unless this step is saved already."""
        if trainer.global_step != self._saved_step:
            self._save(trainer)

    def state_dict(self) -> dict[str, Any]:
        """The best so far."""
        return {"best_loss": self.best_loss, "best_step": self.best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.best_loss, self.best_step = state_dict["best_loss"], state_dict["best_step"]

    def _save(self, trainer: pl.Trainer) -> None:
        step = self._saved_step = trainer.global_step
        trainer.save_checkpoint(self.folder / LAST_CHECKPOINT)
        if trainer.is_global_zero and step % self.save_every == 0:
            _link(self.folder / LAST_CHECKPOINT, step_file(self.folder, step))
            self._drop_old()

    def _drop_old(self) -> None:
        if self.keep:
            # by age, not by step: a run that went back to an earlier step replaces those that lay ahead of it
            files = sorted(self.folder.glob("step_*.ckpt"), key=lambda file: (file.stat().st_mtime_ns, file.name))
            for old in files[: -self.keep]:
                old.unlink()


def _link(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`, replacing what was there in one move."""
    partial = target.with_name(f".{target.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        os.link(source, partial)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, partial)
    os.replace(partial, target)


def _weights(pl_module: pl.LightningModule) -> dict[str, Tensor]:
    model: torch.nn.Module = pl_module.model  # type: ignore[assignment]
    return {name: tensor.detach().cpu() for name, tensor in merged_state(model).items()}
