"""Says when the training loss jumps, and writes down what it jumped on."""

from __future__ import annotations

import math
from collections import deque
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pytorch_lightning as pl

from slm.errors import UserError
from slm.notices import notice
from slm.training.figures import StepFigures
from slm.training.lit_module import LanguageModelModule
from slm.training.watch.settings import LossWatchSettings
from slm.training.watch.step_log import StepLog

SPIKES_FILE = "loss_spikes.jsonl"

_SIGMAS_OF_MAD = 1.4826  # a normal distribution's standard deviation over its median absolute deviation


class LossWatch(pl.Callback):
    """A step whose loss stands out of those before it is said and written to ``loss_spikes.jsonl`` with its samples.

    It stands out if it is above the median of the last `window` steps by `sigmas` robust standard deviations, and above
    `factor` times the median. The deviation is 1.4826 times the median absolute one, of the differences from step to
    step over the root of two: neither a spike nor a falling loss moves it. Of several ranks the first one's share of
    the step is looked at. A jump of many steps is said once, each of them written down.

    Args:
        **settings: those of `LossWatchSettings`; `UserError` for a `window` that is too small to tell by.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = LossWatchSettings(**settings)
        window = self.settings.window
        if window < 2:
            raise UserError(f"callbacks.loss_watch.window must be at least 2 steps, to have a difference; got {window}")
        self._recent: deque[float] = deque(maxlen=window)
        self._quiet_until = 0  # the step before which nothing more is said
        self._seen: list[StepFigures] | None = None
        self._records: StepLog | None = None
        self._lines = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._records = StepLog(Path(trainer.default_root_dir) / SPIKES_FILE)
        if trainer.is_global_zero:
            self._records.go_on_after(self._lines)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, LanguageModelModule)
        if pl_module.settled is self._seen or not trainer.is_global_zero:
            return
        self._seen = pl_module.settled
        for figures in self._seen:
            if math.isfinite(figures.loss):
                self._look_at(figures, trainer)

    def state_dict(self) -> dict[str, Any]:
        lines = self._records.lines if self._records else self._lines
        return {"recent": list(self._recent), "quiet_until": self._quiet_until, "lines": lines}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """When training goes back to a checkpoint, what was written stays."""
        self._recent.extend(state_dict["recent"])
        self._quiet_until, self._lines = state_dict["quiet_until"], state_dict["lines"]

    def _look_at(self, figures: StepFigures, trainer: pl.Trainer) -> None:
        limit = self._limit()
        if figures.loss > limit:
            assert self._records is not None
            usual = median(self._recent)
            self._records.add(figures, trainer.datamodule, loss=figures.loss, usual=usual)  # type: ignore[attr-defined]
            if figures.step >= self._quiet_until:
                notice(
                    f"step {figures.step}: the loss jumped to {figures.loss:.3f}, {usual:.3f} was usual; "
                    f"its samples are in {self._records.file}"
                )
                self._quiet_until = figures.step + (self._recent.maxlen or 0)
        self._recent.append(figures.loss)

    def _limit(self) -> float:
        """The largest loss that is not remarkable."""
        if len(self._recent) < max(2, (self._recent.maxlen or 0) / 2):
            return math.inf
        usual = median(self._recent)
        losses = list(self._recent)
        spread = _SIGMAS_OF_MAD / math.sqrt(2) * median(abs(b - a) for a, b in pairwise(losses))
        return max(usual + self.settings.sigmas * spread, self.settings.factor * usual)
