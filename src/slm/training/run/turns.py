"""One job after the other, in a thread that leaves the processor to training, or at once."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

_NICE = 10  # of the thread: a tenth of the processor where training wants it all


class Turns:
    """Runs jobs in turn and keeps the first error that none has asked for yet.

    Args:
        in_thread: whether `start` returns at once; else when the job is done.
    """

    def __init__(self, in_thread: bool) -> None:
        self.in_thread = in_thread
        self._pool: ThreadPoolExecutor | None = None
        self._job: Future[None] | None = None

    def start(self, job: Callable[[], None]) -> None:
        """Begin `job` once the one before is done (its error, if nobody asked for it, is lost)."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "saving", _leave_the_processor)
        self._job = self._pool.submit(job)
        if not self.in_thread:
            self._job.exception()

    def wait(self) -> BaseException | None:
        """Until the last job is done; its error, once."""
        job, self._job = self._job, None
        return job.exception() if job is not None else None

    def close(self) -> None:
        """Wait, and end the thread; a later `start` begins another."""
        if self._pool is not None:
            self._pool.shutdown(wait=True)
            self._pool = None


def _leave_the_processor() -> None:
    if sys.platform == "linux":  # elsewhere this number is the whole process's
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
