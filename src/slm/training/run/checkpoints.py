"""Checkpoints every N steps, the newest and the best, and the bundle of the best weights; until then, of the last."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn

from slm.files.writing import flush_folder
from slm.models.modules.lora import merged_state
from slm.notices import notice
from slm.training.config import TrainerConfig
from slm.training.optim.schedules import Schedule
from slm.training.run import checkpoint_files as files
from slm.training.run.averaged_weights import averaged_weights
from slm.training.run.checkpoint_io import CheckpointWriter
from slm.training.run.step_callback import StepCallback
from slm.training.run.stops import is_scheduled
from slm.training.run.words_reached import WORDS, words_now, words_reached


@dataclass(frozen=True)
class _Save:
    """One save, and what to go back to if it fails: the best loss and step, and the step saved, until then."""

    step: int
    is_best: bool
    before: tuple[float | None, int | None, int]
    words: tuple[int, ...] = ()  # those of ``trainer.save_at`` that the step reached


@dataclass(eq=False)
class Checkpoints(StepCallback, Checkpoint):
    """Keeps ``step_*.ckpt``, ``last.ckpt`` and ``best.ckpt``, the last one before the rate falls, those of
    ``trainer.save_at``, and the bundle of the best.

    ``last.ckpt`` gets its name when all else of the save is there. A save that fails for want of room, or of a disk, is
    said and taken back: what was the best before is so again, and the next save tries again.
    """

    folder: Path
    settings: TrainerConfig
    schedule: Schedule  # goes into every checkpoint
    writer: CheckpointWriter  # the trainer's plugin
    # given weights and facts of each new best model, maybe in another thread
    write_bundle: Callable[[dict[str, Tensor], dict[str, Any]], None]
    bundled_step: int | None = None  # of the bundle that lies in the run folder
    branches: bool = False  # training goes on from another run's checkpoint, or from an earlier one of this run
    best_loss: float | None = field(default=None, init=False)
    best_step: int | None = field(default=None, init=False)
    failure: OSError | None = field(default=None, init=False)  # why the run's last state could not be saved
    _saved_step: int = field(default=-1, init=False)  # that `LAST_CHECKPOINT` holds, or will when the save is done
    _save_under_way: _Save | None = field(default=None, init=False)
    _lost_bundle: OSError | None = field(default=None, init=False)  # by the thread that writes, until it is done

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._saved_step = trainer.global_step

    def on_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save where the period says so, or training ends; a step that is validated on schedule is saved after that."""
        step = trainer.global_step
        due = trainer.should_stop or self.is_due(trainer)
        follows = trainer.enable_validation and is_scheduled(trainer, self.settings.val_every)
        if due and step != self._saved_step and not follows:
            self.save(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save, and keep the model if it is the best so far; what is validated off the schedule is saved already."""
        if trainer.state.fn != TrainerFn.FITTING or not is_scheduled(trainer, self.settings.val_every):
            return
        self._settle(trainer)  # whether the last best was saved decides what is better than it
        loss: float = pl_module.val_metrics["loss"]  # type: ignore[assignment, index]
        is_best = self.best_loss is None or math.isnan(self.best_loss) or loss < self.best_loss
        if is_best or trainer.should_stop or self.is_due(trainer):
            self.save(trainer, pl_module, is_best)

    def is_due(self, trainer: pl.Trainer) -> bool:
        """Whether the step that was made last is saved whatever the validation says."""
        step = trainer.global_step
        return (
            self.settings.is_saved(step)
            or step == self.schedule.last_before_fall
            or bool(words_reached(trainer, self.settings.word_points))
        )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The end of a run is always saved. What failed a moment ago is tried once more; there is no next save."""
        lost = self._settle(trainer)
        again = lost if lost is not None and lost.step == trainer.global_step else None
        if trainer.global_step != self._saved_step or again is not None:
            self.save(trainer, pl_module, is_best=again is not None and again.is_best)
            self._settle(trainer)

    def save_now(self, trainer: pl.Trainer) -> None:
        """Save, unless this step is saved already."""
        self._settle(trainer)
        if trainer.global_step != self._saved_step:
            self.save(trainer, trainer.lightning_module)

    def last_saved_step(self, trainer: pl.Trainer) -> int:
        """Of the state saved last, once it lies there, or resumed from; 0 before there is one. Asked by all ranks."""
        self._settle(trainer)
        return max(0, self._saved_step)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, state: dict[str, Any]) -> None:
        """So that a run that becomes longer knows what the rate has been through."""
        state["schedule"] = self.schedule.to_dict()
        if (words := words_now(trainer)) is not None:
            state[WORDS] = words

    def state_dict(self) -> dict[str, Any]:
        return {"best_loss": self.best_loss, "best_step": self.best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """A branch begins without a best, unless this folder holds it."""
        self.best_loss, self.best_step = state_dict["best_loss"], state_dict["best_step"]
        if self.branches and self.bundled_step != self.best_step:
            self.best_loss, self.best_step = None, None
        self.branches = False  # whoever goes back in this run finds its own

    def save(self, trainer: pl.Trainer, pl_module: pl.LightningModule, is_best: bool = False) -> None:
        """Save the state of after this step, on all ranks at once; in the background it is done some time later.

        Until there is a best, the weights saved last are the bundle's: wherever a run ends, there is a model.
        """
        self._settle(trainer)
        step = trainer.global_step
        words = tuple(words_reached(trainer, self.settings.word_points))
        self._save_under_way = _Save(step, is_best, (self.best_loss, self.best_step, self._saved_step), words)
        self._saved_step = step
        if is_best:
            self.best_loss, self.best_step = pl_module.val_metrics["loss"], step  # type: ignore[assignment, index]
        if trainer.is_global_zero:
            bundle = is_best or self.best_step is None or self.bundled_step is None
            write_bundle = self._bundle(trainer, pl_module, step, is_best) if bundle else None
            self.writer.put_beside(partial(self._put_beside, self._save_under_way, write_bundle))
        trainer.save_checkpoint(self.folder / files.LAST_CHECKPOINT)

    def _bundle(self, trainer: pl.Trainer, pl_module: pl.LightningModule, step: int, best: bool) -> Callable[[], None]:
        """What writes the bundle of this step; the weights are taken now."""
        model: nn.Module = pl_module.model  # type: ignore[assignment]
        with averaged_weights(trainer.optimizers) as others:
            weights = {name: tensor.detach() for name, tensor in merged_state(model).items()}
            if others:  # they lie only for now where the checkpoint's do
                weights = {name: tensor.clone() for name, tensor in weights.items()}
        weights = self.writer.copied(weights)
        words = words_now(trainer)
        counts = {"step": step, **({} if words is None else {WORDS: words})}
        facts = {**counts, **(pl_module.val_metrics if best else {})}  # type: ignore[dict-item]
        return partial(self.write_bundle, weights, facts)

    def _put_beside(self, save: _Save, write_bundle: Callable[[], None] | None, written: Path) -> None:
        """The rest of a save, before the checkpoint takes its name."""
        bundled = write_bundle is None or self._try(write_bundle, save.step)
        if save.is_best and bundled:
            files.link(written, self.folder / files.BEST_CHECKPOINT)
        if save.step == self.schedule.last_before_fall:
            files.link(written, files.before_fall_file(self.folder, save.step))
        if self.settings.is_save_point(save.step):
            files.link_save_point(written, self.folder, save.step)
        for words in save.words:
            files.link_word_point(written, self.folder, words)
        if save.step % self.settings.save_every == 0:
            files.link(written, files.step_file(self.folder, save.step))
            if self.settings.keep_every_hours is not None:
                files.keep_for_good(self.folder, save.step, self.settings.keep_every_hours)
            flush_folder(self.folder)  # the new name is on the disk before an old one goes
            there = files.step_files(self.folder)
            for step in files.dropped(there, save.step, self.settings.keep):
                there[step].unlink(missing_ok=True)

    def _try(self, write_bundle: Callable[[], None], step: int) -> bool:
        """A bundle that cannot be written must not keep the checkpoint from being so."""
        try:
            write_bundle()
            self.bundled_step = step
        except OSError as error:
            notice(f"the model bundle is not written: {error.strerror}: '{error.filename}'; the one of before stays")
            self._lost_bundle = error
            return False
        return True

    def _settle(self, trainer: pl.Trainer) -> _Save | None:
        """Wait for the save under way; if it failed take back what it promised, on all ranks, and give it."""
        save, self._save_under_way = self._save_under_way, None
        if save is None:
            return None
        failure, lost_bundle = self.writer.wait(), self._lost_bundle
        self._lost_bundle = None
        self.failure = failure or lost_bundle
        whole, bundled = trainer.strategy.broadcast((failure is None, lost_bundle is None))
        best_loss, best_step, saved_step = save.before
        if not whole:
            self._saved_step = saved_step
        if not (whole and bundled):
            self.best_loss, self.best_step = best_loss, best_step
            return save
        return None
