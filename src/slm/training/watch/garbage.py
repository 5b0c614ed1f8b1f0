"""Python's collector stays out of the training steps' way."""

from __future__ import annotations

import gc
from typing import Any

import pytorch_lightning as pl


class FrozenGarbage(pl.Callback):
    """What exists when training starts is set aside: a collection looks at what the steps made, not at half a million
    objects of libraries that will not go away. Nothing is switched off, so cycles are still found."""

    def on_train_start(self, *_: Any) -> None:
        """Collect once, then set aside."""
        gc.collect()
        gc.freeze()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Back into the collector's care, however training ended."""
        gc.unfreeze()
