"""The progress of a run on stderr: a live bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from slm.training.run.planned_stop import PlannedStop
from slm.training.watch.pace import Pace
from slm.training.watch.train_metrics import TrainMetrics


class RunProgress(ProgressBar):
    """Step, training loss, validation loss, tokens a second and the time left."""

    def __init__(self) -> None:
        super().__init__()
        self.console = Console(stderr=True)
        self._progress: Progress | None = None
        self._val_loss: float | None = None
        self._shown_step = -1

    def disable(self) -> None:
        """Lightning turns the bar off on every rank but the first."""
        self.console.quiet = True

    def enable(self) -> None:
        """The inverse of `disable`."""
        self.console.quiet = False

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Text above the bar, as it is (no markup, no wrapping)."""
        self.console.print(*args, markup=False, highlight=False, soft_wrap=True)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the bar."""
        self._metrics = next(c for c in trainer.callbacks if isinstance(c, TrainMetrics))  # type: ignore[attr-defined]
        self._planned = next(c for c in trainer.callbacks if isinstance(c, PlannedStop))  # type: ignore[attr-defined]
        self._pace = Pace(self._planned.val_every)
        self._shown_step = trainer.global_step
        if not sys.stderr.isatty():
            return
        self._progress = Progress(
            TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
            BarColumn(bar_width=None),
            _Figures(),
            TimeElapsedColumn(),
            TextColumn("left"),
            _Left(lambda: self._left(trainer)),
            console=self.console,
            expand=True,
            refresh_per_second=4,
        )
        self._task = self._progress.add_task("train", total=self._last_step(trainer), completed=trainer.global_step)
        self._progress.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar; with no terminal, a line whenever metrics were logged."""
        step = trainer.global_step
        if step == self._shown_step:
            return
        self._shown_step = step
        self._pace.step(step)
        if self._progress is not None:
            self._progress.update(self._task, completed=step, figures=self._figures())
        elif self._metrics.latest_step == step:
            self.print(f"step {step}/{self._last_step(trainer)}  {self._figures()}")

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Time it."""
        self._pace.validation_begins()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the new validation loss."""
        self._pace.validation_ends()
        self._val_loss = float(trainer.callback_metrics["val/loss"])
        if self._progress is None:
            self.print(f"step {trainer.global_step}/{self._last_step(trainer)}  val loss {self._val_loss:.4f}")
        else:
            self._progress.update(self._task, figures=self._figures())

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the last state of the bar on the screen."""
        self._stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Give the terminal back."""
        self._stop()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _last_step(self, trainer: pl.Trainer) -> int:
        return min(trainer.max_steps, self._planned.last_step)

    def _left(self, trainer: pl.Trainer) -> float | None:
        """Seconds until the last step, or until the time is over."""
        left, ends_at = self._pace.left(self._last_step(trainer)), self._planned.ends_at
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


class _Figures(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(task.fields.get("figures", ""))


class _Left(ProgressColumn):
    max_refresh = 0.5

    def __init__(self, left: Callable[[], float | None]) -> None:
        super().__init__()
        self._left = left

    def render(self, task: Task) -> Text:
        left = self._left()
        return Text("-:--:--" if left is None else str(timedelta(seconds=round(left))), style="progress.remaining")
