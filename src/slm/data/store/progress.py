"""How far a store is, on stderr: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from slm.data.store.processes import Report
from slm.notices import notice

_LINE_EVERY_S = 30.0


@contextmanager
def progress(what: str, total: int) -> Iterator[Report]:
    """A function that is told how many more of `total` bytes are done."""
    from rich import progress as bars
    from rich.console import Console

    is_seen = sys.stderr.isatty()
    columns = (
        *("{task.description}", bars.BarColumn(), bars.DownloadColumn(), bars.TransferSpeedColumn()),
        *(bars.TimeElapsedColumn(), "left", bars.TimeRemainingColumn()),
    )
    with bars.Progress(*columns, console=Console(stderr=True), disable=not is_seen) as bar:
        bar.add_task(what, total=total)
        (task,) = bar.tasks
        told = time.monotonic()

        def report(n: int) -> None:
            nonlocal told
            bar.advance(task.id, n)
            if not is_seen and time.monotonic() - told >= _LINE_EVERY_S:
                told = time.monotonic()
                mb = f"{task.completed / 1e6:,.0f} of {total / 1e6:,.0f} MB  {(task.speed or 0) / 1e6:.1f} MB/s"
                left = "no end in sight" if task.time_remaining is None else f"{task.time_remaining:,.0f} s left"
                notice(f"{what} {mb}  {left}")

        yield report
