"""How many bytes of something long are done, on stderr: a live bar in a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from slm.notices import notice

_LINE_EVERY_S = 30.0


@contextmanager
def byte_progress(what: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """A function that shows what it is told: how many more bytes are done, or how many are (`completed`) of `total`;
    where that is not known ahead and stderr is no terminal, nothing is shown."""
    from rich import progress as bars  # takes a while to import
    from rich.console import Console
    from rich.markup import escape

    is_seen = sys.stderr.isatty()
    has_lines = total is not None and not is_seen
    sizes = (bars.BarColumn(), bars.DownloadColumn(), bars.TransferSpeedColumn())
    times = (bars.TimeElapsedColumn(), "left", bars.TimeRemainingColumn())
    with bars.Progress("{task.description}", *sizes, *times, console=Console(stderr=True), disable=not is_seen) as bar:
        bar.add_task(escape(what), total=total)
        (task,) = bar.tasks
        told = time.monotonic()

        def report(more: int | None = None, *, completed: int | None = None, total: int | None = None) -> None:
            nonlocal told
            bar.update(task.id, advance=more, completed=completed, total=total)
            if has_lines and task.total and time.monotonic() - told >= _LINE_EVERY_S:
                told = time.monotonic()
                left = "no end in sight" if task.time_remaining is None else f"{task.time_remaining:,.0f} s left"
                mb = f"{task.completed / 1e6:,.0f} of {task.total / 1e6:,.0f} MB  {(task.speed or 0) / 1e6:.1f} MB/s"
                notice(f"{what} {mb}  {left}")

        yield report
