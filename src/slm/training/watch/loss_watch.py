"""Says when the training loss jumps, and writes down what it jumped on."""

import math
from collections import deque
from itertools import pairwise
from statistics import median
from typing import Any, cast

import pytorch_lightning as pl

from slm.errors import UserError
from slm.notices import notice
from slm.training.config import LossWatchSettings
from slm.training.figures import StepFigures
from slm.training.lit_module import LanguageModelModule
from slm.training.run.step_callback import StepCallback
from slm.training.watch.step_log import StepLog

_SIGMAS_OF_MAD = 1.4826  # a normal distribution's standard deviation over its median absolute deviation


class LossWatch(StepCallback):
    """A step whose loss stands out of those before it is said and written to ``loss_spikes.jsonl`` with its samples.

    It stands out if it is above the median of the last `window` steps by `sigmas` robust standard deviations, and above
    `factor` times the median. The deviation is 1.4826 times the median absolute one, of the differences from step to
    step over the root of two: neither a spike nor a falling loss moves it. Of several ranks the first one's share of
    the step is looked at. A jump of many steps is said once, each of them written down. `settings` are those of
    `LossWatchSettings`; `UserError` for a `window` that is too small to tell by.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = LossWatchSettings(**settings)
        window = self.settings.window
        if window < 2:
            raise UserError(f"callbacks.loss_watch.window must be at least 2 steps, to have a difference; got {window}")
        self._recent: deque[float] = deque(maxlen=window)
        self._quiet_until = 0  # the step before which nothing more is said
        self._records = StepLog("loss_spikes.jsonl")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._records.open(trainer)

    def on_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            for figures in cast(LanguageModelModule, pl_module).settled:
                if math.isfinite(figures.loss):
                    self._look_at(figures, trainer)

    def state_dict(self) -> dict[str, Any]:
        return {"recent": list(self._recent), "quiet_until": self._quiet_until, "lines": self._records.lines}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._recent.extend(state_dict["recent"])
        self._quiet_until = state_dict["quiet_until"]
        if not self.has_begun:  # when training goes back to a checkpoint, what was written stays
            self._records.lines = state_dict["lines"]

    def _look_at(self, figures: StepFigures, trainer: pl.Trainer) -> None:
        if figures.loss > self._limit():
            usual = median(self._recent)
            self._records.add(figures, trainer, loss=figures.loss, usual=usual)
            if figures.step >= self._quiet_until:
                notice(
                    f"step {figures.step}: the loss jumped to {figures.loss:.3f}, {usual:.3f} was usual; "
                    f"its samples are in {self._records.file}"
                )
                self._quiet_until = figures.step + self.settings.window
        self._recent.append(figures.loss)

    def _limit(self) -> float:
        """The largest loss that is not remarkable."""
        if len(self._recent) < max(2, self.settings.window / 2):
            return math.inf
        usual = median(self._recent)
        spread = _SIGMAS_OF_MAD / math.sqrt(2) * median(abs(b - a) for a, b in pairwise(self._recent))
        return max(usual + self.settings.sigmas * spread, self.settings.factor * usual)
