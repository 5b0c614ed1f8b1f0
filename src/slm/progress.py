"""How far something is, on stderr: a live bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as LiveBar
from rich.table import Column
from rich.text import Text

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
