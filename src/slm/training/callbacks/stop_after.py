"""The end of a run, or of a part of one."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl


class StopAfter(pl.Callback):
    """Ends training once `last_step` optimizer steps are made, with a validation and a checkpoint."""

    def __init__(self, last_step: int) -> None:
        self.last_step = last_step

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """A run that had come to its end already has no step left."""
        if checkpoint["global_step"] >= self.last_step:
            trainer.should_stop = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Lightning validates once more before it heeds `should_stop`."""
        if trainer.global_step >= self.last_step:
            trainer.should_stop = True
