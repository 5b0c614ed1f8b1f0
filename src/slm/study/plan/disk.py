"""What a run leaves on the disk: the token store, checkpoints, the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from slm.data.batches.datamodule import TextDataModule
from slm.data.batches.mixture import MixtureStore
from slm.training.optim.schedules import Schedule

if TYPE_CHECKING:
    from slm.data.batches.datamodule import WindowDataModule
    from slm.training.config import TrainerConfig
    from slm.training.run_config import RunConfig


@dataclass(frozen=True)
class Disk:
    """Bytes."""

    token_store: int  # shared by all runs on this data
    checkpoint: int  # one file
    checkpoints: int  # at most at a time, the one that is being written too
    model: int  # the bundle, and with LoRA the weights that it began with

    @property
    def total(self) -> int:
        return self.token_store + self.checkpoints + self.model


def disk_of(data: WindowDataModule, config: RunConfig, state: int, weights: int, hours: float) -> Disk:
    """Of a run whose checkpoint has `state` bytes and whose whole model has `weights`, that takes so many `hours`."""
    falls_at = Schedule.of(config.scheduler, config.trainer.steps).last_before_fall
    windows = config.trainer.steps * (config.trainer.global_batch_size or config.trainer.windows_at_once)
    files = files_at_most(config.trainer, hours, falls_at, tokens=windows * data.seq_len)
    return Disk(_store_bytes(data), state, files * state, weights * (1 if config.adapter is None else 2))


def files_at_most(trainer: TrainerConfig, hours: float, falls_at: int | None = None, tokens: int = 0) -> int:
    """Checkpoints of different steps at a time: those of every ``save_every`` steps that are kept, the best, the last
    where it is none of them, that before the rate falls, those that stay for good, ``save_at``'s too, and the next one
    while it is written. In so many `tokens` there are at most as many words."""
    made = trainer.steps // trainer.save_every
    kept = made if trainer.keep == 0 else min(made, max(2, trainer.keep))
    last = 1 if trainer.steps % trainer.save_every or not made else 0
    is_another = trainer.val_every % trainer.save_every != 0 or kept < made
    best = 1 if trainer.val_every < trainer.steps and is_another else 0
    before_fall = 1 if falls_at is not None and (falls_at % trainer.save_every or kept < made) else 0
    for_good = 0 if trainer.keep_every_hours is None else min(made, int(hours / trainer.keep_every_hours))
    by_step = {step * trainer.save_every for step in range(made - kept + 1, made + 1)} | {trainer.steps, falls_at}
    points = len(set(trainer.save_points) - by_step)
    if trainer.word_points is not None:
        points += sum(point <= tokens for point in trainer.word_points.points)
    return kept + last + best + before_fall + for_good + points + 1


def _store_bytes(data: WindowDataModule) -> int:
    if not isinstance(data, TextDataModule):
        return 0  # conversations and pairs are read into memory
    stores = data.store.stores.values() if isinstance(data.store, MixtureStore) else [data.store]
    return sum(_size(store.folder) for store in stores)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
