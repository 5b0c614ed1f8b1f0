"""Where a run broke off, for the message that says how to go on."""

from __future__ import annotations

import pytorch_lightning as pl


class BrokenOff(pl.Callback):
    """Notes in `where` what was under way when an exception ended the run."""

    def __init__(self) -> None:
        self.where = "before the first step"

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on there is a step."""
        self.where = ""

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Called by Lightning before it forgets."""
        if not self.where:
            step = trainer.global_step
            self.where = f"in the validation after step {step}" if trainer.validating else f"in step {step + 1}"
