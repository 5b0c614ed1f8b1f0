"""The progress of a run on stderr, and how long it will still take."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar
from rich import progress as bars
from rich.console import Console
from rich.table import Column
from rich.text import Text

from slm.training.run.step_callback import StepCallback
from slm.training.run.stops import PlannedStop
from slm.training.watch.train_metrics import TrainMetrics

Left = Callable[[], float | None]  # seconds until the end; None while there is nothing to tell by


class Pace:
    """Means of this session: of a step, without the first one, which compiles and fills caches; of a validation.

    A mean over the last half minute, as bars have it, is off tenfold where a validation is most of that. Validation
    comes every `val_every` optimizer steps; the clock gives seconds.
    """

    def __init__(self, val_every: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self.val_every = val_every
        self._clock = clock
        self._step = 0
        self._since: float | None = None  # the end of the first step, later of the last one or of its validation
        self._steps = self._validations = (0, 0.0)  # how many, and their seconds
        self._validating_since = 0.0

    def step(self, step: int) -> None:
        now = self._clock()
        if self._since is not None:
            self._steps = (self._steps[0] + 1, self._steps[1] + now - self._since)
        self._step, self._since = step, now

    def validation_begins(self) -> None:
        self._validating_since = self._clock()

    def validation_ends(self) -> None:
        """Note it; it is no part of a step."""
        took = self._clock() - self._validating_since
        self._validations = (self._validations[0] + 1, self._validations[1] + took)
        if self._since is not None:
            self._since += took

    def left(self, last_step: int) -> float | None:
        """Seconds until `last_step` is validated; None while there is no step to tell by."""
        if self._since is None or not self._steps[0]:
            return None
        steps = last_step - self._step
        validations = -(-last_step // self.val_every) - self._step // self.val_every
        still = steps * _mean(self._steps) + validations * _mean(self._validations)
        return max(0.0, still - (self._clock() - self._since))


def _mean(counted: tuple[int, float]) -> float:
    return counted[1] / counted[0] if counted[0] else 0.0


class Progress:
    """A count that goes up to `total`, ``step 3/10``, and figures beside it."""

    def __init__(self, noun: str, total: int, left: Left, done: int, console: Console) -> None:
        self._noun, self._total, self._console = noun, total, console
        self._bar: bars.Progress | None = None
        if console.file.isatty():
            count, figures = _text(f"{noun} {{task.completed}}/{{task.total}}"), _text("{task.fields[figures]}")
            passed = (count, bars.BarColumn(bar_width=None), figures, bars.TimeElapsedColumn())
            self._bar = bars.Progress(*passed, "left", _Left(left), console=console, expand=True)
            self._task: bars.TaskID = self._bar.add_task("", total=total, completed=done, figures="")
            self._bar.start()

    def update(self, done: int, figures: str, line: str | None = None) -> None:
        """Move the bar; where there is none, print `line`, if any, behind the count."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, figures=figures)
        elif line is not None:
            said = f"{self._noun} {done}/{self._total}  {line}"
            self._console.print(said, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Leave the last state of the bar on the screen, and give the terminal back."""
        if self._bar is not None:
            self._bar.stop()


def _text(form: str) -> bars.TextColumn:
    return bars.TextColumn(form, markup=False, table_column=Column())  # which may wrap


class _Left(bars.ProgressColumn):
    max_refresh = 0.5

    def __init__(self, left: Left) -> None:
        super().__init__()
        self._left = left

    def render(self, task: bars.Task) -> Text:
        left = self._left()
        return Text("-:--:--" if left is None else str(timedelta(seconds=round(left))), style="progress.remaining")


class RunProgress(StepCallback, ProgressBar):
    """Step, training loss, validation loss, tokens a second and the time left; with no terminal, a line whenever
    metrics were logged."""

    def __init__(self) -> None:
        super().__init__()
        self.console = Console(stderr=True)
        self._shown: Progress | None = None
        self._val_loss: float | None = None

    def disable(self) -> None:
        self.console.quiet = True

    def enable(self) -> None:
        self.console.quiet = False

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Text above the bar, as it is (no markup, no wrapping)."""
        self.console.print(*args, markup=False, highlight=False, soft_wrap=True)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._metrics = next(c for c in trainer.callbacks if isinstance(c, TrainMetrics))  # type: ignore[attr-defined]
        self._planned = next(c for c in trainer.callbacks if isinstance(c, PlannedStop))  # type: ignore[attr-defined]
        self._pace = Pace(self._planned.val_every)
        self._last_step = min(trainer.max_steps, self._planned.last_step)
        self._shown = Progress("step", self._last_step, self._left, trainer.global_step, self.console)

    def on_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        step, figures = trainer.global_step, self._figures()
        self._pace.step(step)
        if self._shown is not None:
            self._shown.update(step, figures, line=figures if self._metrics.latest_step == step else None)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._pace.validation_begins()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._pace.validation_ends()
        self._val_loss = float(trainer.callback_metrics["val/loss"])
        if self._shown is not None:
            self._shown.update(trainer.global_step, self._figures(), line=f"val loss {self._val_loss:.4f}")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._shown is not None:
            self._shown.close()
            self._shown = None

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.on_train_end(trainer, pl_module)

    def _left(self) -> float | None:
        """Seconds until the last step, or until the time is over."""
        left, ends_at = self._pace.left(self._last_step), self._planned.ends_at
        if left is None or ends_at is None:
            return left
        return min(left, max(0.0, ends_at - time.monotonic()))

    def _figures(self) -> str:
        latest = self._metrics.latest
        parts = [f"loss {latest['train/loss']:.3f}"] if latest else []
        if self._val_loss is not None:
            parts.append(f"val {self._val_loss:.3f}")
        if latest:
            parts.append(f"{latest['speed/tokens_per_s']:,.0f} tokens/s")
        return "  ".join(parts)
