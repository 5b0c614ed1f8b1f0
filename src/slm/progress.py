"""How far something is, on stderr: a live bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich import progress as bars
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as LiveBar
from rich.table import Column
from rich.text import Text

from slm.notices import notice

_LINE_EVERY_S = 30.0
Words = Callable[[int, int], str]  # of a count and its total: ``step 3/10``
Left = Callable[[], float | None]  # seconds until the end; None while there is nothing to tell by


class Progress:
    """A count that goes up to `total`, and figures beside it."""

    def __init__(self, words: Words, total: int, left: Left, done: int, console: Console) -> None:
        self.words, self.total, self.console = words, total, console
        self._bar: LiveBar | None = None
        if console.file.isatty():
            columns = (_field("words"), BarColumn(bar_width=None), _field("figures"), TimeElapsedColumn())
            self._bar = LiveBar(*columns, TextColumn("left"), _Left(left), console=console, expand=True)
            said = words(done, total)
            self._task: TaskID = self._bar.add_task("", total=total, completed=done, words=said, figures="")
            self._bar.start()

    def update(self, done: int, figures: str, line: str | None = None) -> None:
        """Move the bar; where there is none, print `line`, if any, behind the count."""
        words = self.words(done, self.total)
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=self.total, words=words, figures=figures)
        elif line is not None:
            self.console.print(f"{words}  {line}", markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Leave the last state of the bar on the screen, and give the terminal back."""
        if self._bar is not None:
            self._bar.stop()


def _field(name: str) -> TextColumn:
    return TextColumn(f"{{task.fields[{name}]}}", markup=False, table_column=Column())  # which may wrap


class _Left(ProgressColumn):
    max_refresh = 0.5

    def __init__(self, left: Left) -> None:
        super().__init__()
        self._left = left

    def render(self, task: Task) -> Text:
        left = self._left()
        return Text("-:--:--" if left is None else str(timedelta(seconds=round(left))), style="progress.remaining")


@contextmanager
def byte_progress(what: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """A function that is told how many more bytes are done (`advance`), or how many are, of how many (`completed`,
    `total`), and shows them."""
    is_seen = sys.stderr.isatty()
    sizes = (bars.DownloadColumn(), bars.TransferSpeedColumn())
    times = (TimeElapsedColumn(), "left", bars.TimeRemainingColumn())
    columns = ("{task.description}", BarColumn(), *sizes, *times)
    with LiveBar(*columns, console=Console(stderr=True), disable=not is_seen) as bar:
        bar.add_task(escape(what), total=total)
        (task,) = bar.tasks
        told = time.monotonic()

        def report(advance: int | None = None, *, completed: int | None = None, total: int | None = None) -> None:
            nonlocal told
            bar.update(task.id, advance=advance, completed=completed, total=total)
            if not is_seen and time.monotonic() - told >= _LINE_EVERY_S:
                told = time.monotonic()
                of = "" if task.total is None else f" of {task.total / 1e6:,.0f}"
                left = "no end in sight" if task.time_remaining is None else f"{task.time_remaining:,.0f} s left"
                notice(f"{what} {task.completed / 1e6:,.0f}{of} MB  {(task.speed or 0) / 1e6:.1f} MB/s  {left}")

        yield report
