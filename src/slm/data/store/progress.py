"""How far a store is, on stderr: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from slm.data.store.worker import Report
from slm.notices import notice

_LINE_EVERY_S = 30.0


@contextmanager
def progress(what: str, total: int) -> Iterator[Report]:
    """A function that is told how many more bytes are done.

    Args:
        what: is done with the text.
        total: bytes there are.
    """
    if sys.stderr.isatty():
        with _bar(what, total) as report:
            yield report
    else:
        yield _Lines(what, total).report


class _Lines:
    """MB/s and time left are counted from the first report on: what was done in an earlier try took no time."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total = what, total
        self._done = 0
        self._began = self._told = time.monotonic()
        self._done_before: int | None = None

    def report(self, n: int) -> None:
        if self._done_before is None:
            self._done_before = n if self._done == 0 else 0
        self._done += n
        now = time.monotonic()
        if now - self._told >= _LINE_EVERY_S:
            self._told = now
            rate = (self._done - self._done_before) / (now - self._began)
            left = f"{(self._total - self._done) / rate:,.0f} s left" if rate > 0 else "no end in sight"
            mb = f"{self._done / 1e6:,.0f} of {self._total / 1e6:,.0f} MB"
            notice(f"{self._what} {mb}  {rate / 1e6:.1f} MB/s  {left}")


@contextmanager
def _bar(what: str, total: int) -> Iterator[Report]:
    from rich import progress as rich_progress
    from rich.console import Console

    columns = (
        rich_progress.BarColumn(),
        rich_progress.DownloadColumn(),
        rich_progress.TransferSpeedColumn(),
        rich_progress.TimeElapsedColumn(),
        "left",
        rich_progress.TimeRemainingColumn(),
    )
    with rich_progress.Progress("{task.description}", *columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total)
        yield lambda n: bar.advance(task, n)
