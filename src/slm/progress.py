"""How far something is, on stderr: a live bar in a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich import progress as bars
from rich.console import Console
from rich.markup import escape
from rich.table import Column
from rich.text import Text

from slm.notices import notice

_LINE_EVERY_S = 30.0
Left = Callable[[], float | None]  # seconds until the end; None while there is nothing to tell by


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


@contextmanager
def byte_progress(what: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """A function that shows what it is told: how many more bytes are done, or how many are (`completed`) of `total`."""
    is_seen = sys.stderr.isatty()
    sizes = (bars.BarColumn(), bars.DownloadColumn(), bars.TransferSpeedColumn())
    times = (bars.TimeElapsedColumn(), "left", bars.TimeRemainingColumn())
    with bars.Progress("{task.description}", *sizes, *times, console=Console(stderr=True), disable=not is_seen) as bar:
        bar.add_task(escape(what), total=total)
        (task,) = bar.tasks
        told = time.monotonic()

        def report(more: int | None = None, *, completed: int | None = None, total: int | None = None) -> None:
            nonlocal told
            bar.update(task.id, advance=more, completed=completed, total=total)
            if not is_seen and time.monotonic() - told >= _LINE_EVERY_S:
                told = time.monotonic()
                of = "" if task.total is None else f" of {task.total / 1e6:,.0f}"
                left = "no end in sight" if task.time_remaining is None else f"{task.time_remaining:,.0f} s left"
                notice(f"{what} {task.completed / 1e6:,.0f}{of} MB  {(task.speed or 0) / 1e6:.1f} MB/s  {left}")

        yield report
