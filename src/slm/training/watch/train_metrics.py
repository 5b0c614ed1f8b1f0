"""What a training step is logged with: loss, learning rate, gradient norm, speed."""

import time
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.utilities.throughput import get_available_flops
from torch.optim import Optimizer

from slm.models.flops import training_flops_per_token
from slm.training.lightning_seams import is_logged
from slm.training.lit_module import LanguageModelModule
from slm.training.run.words_reached import words_now

LOGGED = frozenset(f"train/{name}" for name in ("loss", "lr", "grad_norm", "tokens", "words", "bad_steps"))
"""Beside what the module itself says, and ``speed/*``."""


class TrainMetrics(pl.Callback):
    """Every `log_every` optimizer steps, at the first and at the last one, a row to all loggers, which are told all
    `settings` before.

    ``train/loss`` is the mean over the tokens since the last row. ``speed/*`` covers the same steps, validation and
    saving left out: ``tokens_per_s`` over all ranks, of all that the model read (padding too: it costs as much),
    ``step_ms``, ``data_wait_percent`` and, on a device whose peak is known, ``mfu_percent`` (Chowdhery et al. 2022,
    appendix B).
    """

    def __init__(self, log_every: int, settings: dict[str, Any]) -> None:
        self.log_every, self._settings = log_every, settings
        self.latest: dict[str, float] = {}
        self.latest_step = -1
        self.total_s = 0.0
        self.total_tokens = 0
        self._logged_step = 0
        self._started = self._paused_at = 0.0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        for logger in trainer.loggers:  # ahead of the first metric: Lightning would write an empty hparams.yaml
            logger.log_hyperparams(self._settings)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._logged_step = trainer.global_step
        device = pl_module.device
        on_cuda = device.type == "cuda"
        self._peak_flops = get_available_flops(device, trainer.precision_plugin.precision) if on_cuda else None
        self._flops_per_token = training_flops_per_token(pl_module.model)  # type: ignore[arg-type]
        self._reset(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._paused_at = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._started += time.perf_counter() - self._paused_at

    def leave_out(self, seconds: float) -> None:
        """What took so long just now was no training."""
        self._started += seconds

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Optimizer) -> None:
        """Note the learning rate this step is made with; at its end the schedule has moved on."""
        self._lr = optimizer.param_groups[0]["lr"]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._tokens += batch["input_ids"].numel() * trainer.world_size
        step = trainer.global_step
        if step == self._logged_step or not is_logged(step, self.log_every, trainer.max_steps):
            return
        assert isinstance(pl_module, LanguageModelModule)
        assert pl_module.grad_norm is not None
        means = pl_module.take_train_metrics()  # `BadSteps` waited for the device, so the clock covers finished work
        seconds = time.perf_counter() - self._started
        metrics = {
            **means,
            "train/lr": self._lr,
            "train/grad_norm": float(pl_module.grad_norm),
            "train/tokens": pl_module.tokens_trained,
            "speed/tokens_per_s": self._tokens / seconds,
            "speed/step_ms": 1000 * seconds / (step - self._logged_step),
            "speed/data_wait_percent": 100 * (_waited(trainer) - self._waited_before) / seconds,
        }
        if (words := words_now(trainer)) is not None:
            metrics["train/words"] = words
        if pl_module.bad_steps:
            metrics["train/bad_steps"] = pl_module.bad_steps
        if self._peak_flops:
            peak = self._peak_flops * trainer.world_size
            metrics["speed/mfu_percent"] = 100 * self._flops_per_token * self._tokens / seconds / peak
        self._logged_step = step
        self.total_s += seconds
        self.total_tokens += self._tokens
        self.latest, self.latest_step = metrics, step
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=step)
        self._reset(trainer)

    def _reset(self, trainer: pl.Trainer) -> None:
        self._started = time.perf_counter()
        self._tokens = 0
        self._waited_before = _waited(trainer)


def _waited(trainer: pl.Trainer) -> float:
    return trainer.datamodule.waited_s  # type: ignore[attr-defined]
