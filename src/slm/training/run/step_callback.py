"""A callback that is told of optimizer steps: Lightning's hooks speak of batches, of which a step may take several."""

from typing import Any

import pytorch_lightning as pl


class StepCallback(pl.Callback):
    """Calls `on_step` once an optimizer step is made, at the end of its last batch; `seen_step` is the last one."""

    seen_step = -1

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seen_step = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any, **__: Any) -> None:
        if trainer.global_step != self.seen_step:
            self.seen_step = trainer.global_step
            self.on_step(trainer, pl_module)

    @property
    def has_begun(self) -> bool:
        """Training has; what is loaded from here on is of a checkpoint that it goes back to."""
        return self.seen_step >= 0

    def on_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Step `trainer.global_step` was made."""
