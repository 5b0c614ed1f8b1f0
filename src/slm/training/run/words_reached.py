"""How many words a run has read, where the data counts them, and which save points the step made last came to."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

from slm.training.save_points import WordPoints

WORDS = "words"  # in checkpoints, facts of bundles and ``summary.json``: read so far, each as often as it was


def words_now(trainer: pl.Trainer) -> int | None:
    """Read so far over all ranks; None where they are not counted."""
    words = getattr(_data(trainer), "words", None)
    return None if words is None else words.at(_data(trainer).position)


def words_reached(trainer: pl.Trainer, points: WordPoints | None) -> list[int]:
    """Of `points` those that the step made last came to; of a run's last step also what it ends shortly before."""
    data = _data(trainer)
    if points is None or data.words is None:
        return []
    taken = data.batch_size * trainer.accumulate_grad_batches * trainer.world_size
    before, after = data.words.at(data.position - taken), data.words.at(data.position)
    return points.reached(before, after, is_end=trainer.global_step >= trainer.max_steps)


def _data(trainer: pl.Trainer) -> Any:
    return getattr(trainer, "datamodule", None)
