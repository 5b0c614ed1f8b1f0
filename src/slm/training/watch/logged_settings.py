"""The run's settings, to every logger that keeps some."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl


class LoggedSettings(pl.Callback):
    """Hands them over ahead of the first metric: Lightning would write an empty ``hparams.yaml`` next.

    Args:
        settings: nested plain types, nothing secret in them.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = dict(settings)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Once a session."""
        for logger in trainer.loggers:
            logger.log_hyperparams(self.settings)
