"""Benchmarks while a model is trained: every so many steps, on the weights that validation sees."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import pytorch_lightning as pl
from torch import nn

from slm.data.batches.datamodule import WindowDataModule
from slm.errors import UserError, refuse
from slm.evaluation.benchmark_config import benchmark_config
from slm.evaluation.benchmarks.in_context import windows_in
from slm.evaluation.reader import CountingReader, Reader
from slm.evaluation.suite import Suite, suite
from slm.generation.language_model import LanguageModel
from slm.models.contract import CausalLM
from slm.notices import notice
from slm.schema import Count, Probability, unknown_key, value_problems
from slm.tokenizers.base import Tokenizer
from slm.training.lit_module import LanguageModelModule
from slm.training.run.averaged_weights import averaged_weights
from slm.training.run.checkpoints import Checkpoints
from slm.training.run.step_callback import StepCallback
from slm.training.watch.train_metrics import TrainMetrics

WHERE = "callbacks.evaluation"
_SETTINGS = (
    *("tasks", "limit", "batch_size", "minimal_pairs", "surprisal", "choices", "core", "in_context", "induction"),
    *("num_fewshot", "include_path", "apply_chat_template", "system", "gen_kwargs", "unsafe_code"),
)
_FORWARD = 1 / 3  # of a training step's operations, whose backward pass takes twice as many as its forward pass


class Evaluation(StepCallback):
    """Puts the model to `tasks`, as `slm-evaluate` does, and logs each figure as ``eval/TASK/FIGURE``.

    It is done at every `every` optimizer steps, or at every second, third, … of those, so that it takes at most a
    `share` of the time. Which, is counted in tokens, read ahead of training without the model, never in seconds: so
    the steps are the same wherever and however often a run is resumed. What it really took is told at the end.

    Nothing is drawn from the run's random numbers, and nothing in the model is changed: training is the same to the
    last bit with and without it. Other settings are those of `BenchmarkConfig`. `UserError` where one is wrong, a file
    is missing, or a task does not go with the model: before the first step.
    """

    def __init__(self, every: int, share: float = 0.05, **settings: Any) -> None:
        refuse(
            [
                *value_problems(Count, every, f"{WHERE}.every"),
                *value_problems(Probability, share, f"{WHERE}.share"),
                *(
                    unknown_key(f"{WHERE}.{key}", ("every", "share", *_SETTINGS))
                    for key in settings
                    if key not in _SETTINGS
                ),
            ]
        )
        if not settings.get("tasks"):
            raise UserError(f"{WHERE}.tasks names none; name some, or take callbacks=default")
        self.every, self.share = every, share
        self.config = benchmark_config(settings, WHERE)
        self._data: WindowDataModule | None = None
        self._suite: Suite | None = None
        self._tokens = 0  # that one evaluation reads
        self._period = every  # steps between two, once the share is seen to
        self._spent = self._began = 0.0

    def take_data(self, data: WindowDataModule) -> None:
        """What `in_context` reads where no file is named."""
        self._data = data

    def check_before_training(self, module: LanguageModelModule) -> None:
        """Read what tasks need, and count what they cost, by asking a model that reads nothing."""
        text = None if self._data is None else (partial(windows_in, self._data), self._data.seq_len)
        try:
            self._suite = suite(self.config, text)
            counting = CountingReader(_language_model(module), self.config.batch_size)
            for _ in self._suite.run(counting):
                pass
        except UserError as error:
            raise UserError(f"callbacks: evaluation: {error}") from error
        self._tokens = counting.tokens

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._began = time.perf_counter()
        cost, step = self._tokens * _FORWARD, _step_cost(trainer)
        self._period = self.every * periods(cost, step * self.every, self.share)
        taken = cost / (cost + step * self._period)
        names = ", ".join(self.config.tasks)
        notice(
            f"evaluation: {names} every {self._period} steps, {self._tokens:,} tokens, about {taken:.1%} of the time"
        )

    def on_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step % self._period or not trainer.is_global_zero:
            return
        start = time.perf_counter()
        figures = self._figures(trainer, cast(LanguageModelModule, pl_module))
        seconds = time.perf_counter() - start
        self._spent += seconds
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, TrainMetrics):
                callback.leave_out(seconds)
        for logger in trainer.loggers:
            logger.log_metrics({**figures, "speed/evaluation_s": seconds}, step=trainer.global_step)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        seconds = time.perf_counter() - self._began
        if self._spent and seconds:
            taken = self._spent / seconds
            mend = f"; more than the {self.share:.0%} that were set: a larger {WHERE}.every or a smaller limit mends it"
            more = mend if taken > self.share + 0.02 else ""
            notice(f"evaluation took {self._spent:.1f} s, {taken:.1%} of the session{more}")

    def _figures(self, trainer: pl.Trainer, module: LanguageModelModule) -> dict[str, float]:
        assert self._suite is not None
        reader = Reader(_language_model(module), self.config.batch_size)
        figures: dict[str, float] = {}
        with averaged_weights(trainer.optimizers), trainer.precision_plugin.forward_context(), _in_eval_mode(module):
            for name, findings, _ in self._suite.run(reader):
                figures |= {f"eval/{name}/{figure}": float(value) for figure, value in findings.figures.items()}
        return {name: value for name, value in figures.items() if math.isfinite(value)}


def periods(cost: float, training: float, share: float) -> int:
    """After how many times the `training` something of `cost` may be done, so that it takes at most a `share` of both;
    1 where the share is 0, which sets no bound."""
    return max(1, math.ceil(cost * (1 - share) / (share * training))) if share else 1


def _step_cost(trainer: pl.Trainer) -> float:
    """What an optimizer step reads on this rank, and its part of a validation, in tokens of training."""
    data = cast(Any, trainer).datamodule
    trained = data.batch_size * data.seq_len * trainer.accumulate_grad_batches
    (every,) = [one.settings.val_every for one in trainer.callbacks if isinstance(one, Checkpoints)]  # type: ignore[attr-defined]
    windows = sum(map(len, data.parts(data.eval_split))) / trainer.world_size
    limit = trainer.limit_val_batches
    read = min(windows, limit * data.batch_size) if isinstance(limit, int) else windows * limit
    return trained + read * data.seq_len * _FORWARD / every


def _language_model(module: LanguageModelModule) -> LanguageModel:
    return LanguageModel(cast(CausalLM, module.model), cast(Tokenizer, module.tokenizer), facts={})


@contextmanager
def _in_eval_mode(module: nn.Module) -> Iterator[None]:
    before = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in before:
            part.training = training
