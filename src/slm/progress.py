"""How far something is, on stderr: a live bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as LiveBar
from rich.text import Text


class Progress:
    """A count that goes up to `total`, and figures beside it.

    Args:
        words: count and total in words, e.g. ``step 3/10``.
        total, done: of the whole, and so far.
        left: seconds until the end; None while there is nothing to tell by.
        console: where to; None for stderr.
    """

    def __init__(
        self,
        words: Callable[[int, int], str],
        total: int,
        left: Callable[[], float | None],
        done: int = 0,
        console: Console | None = None,
    ) -> None:
        self.words = words
        self.total = total
        self.console = console or Console(stderr=True)
        self._bar: LiveBar | None = None
        if self.console.file.isatty():
            columns = (_Field("words"), BarColumn(bar_width=None), _Field("figures"), TimeElapsedColumn())
            self._bar = LiveBar(*columns, TextColumn("left"), _Left(left), console=self.console, expand=True)
            self._task: TaskID = self._bar.add_task("", total=total, completed=done, words=words(done, total))
            self._bar.start()

    def update(self, done: int, figures: str, line: str | None = None) -> None:
        """Move the bar; where there is none, print `line`, if any, behind the count."""
        words = self.words(done, self.total)
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=self.total, words=words, figures=figures)
        elif line is not None:
            self.print(f"{words}  {line}")

    def print(self, text: str) -> None:
        """Text above the bar, as it is (no markup, no wrapping)."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Leave the last state of the bar on the screen, and give the terminal back."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class _Field(ProgressColumn):
    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def render(self, task: Task) -> Text:
        return Text(task.fields.get(self._name, ""))


class _Left(ProgressColumn):
    max_refresh = 0.5

    def __init__(self, left: Callable[[], float | None]) -> None:
        super().__init__()
        self._left = left

    def render(self, task: Task) -> Text:
        left = self._left()
        return Text("-:--:--" if left is None else str(timedelta(seconds=round(left))), style="progress.remaining")
