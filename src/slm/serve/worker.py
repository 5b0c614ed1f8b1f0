"""The one thread that computes: a step of each model that has work, in turn."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from slm.notices import notice
from slm.serve.jobs import Broken, Finished, Job, News
from slm.serve.lane import Lane
from slm.serve.request_error import RequestError


class Worker:
    """Takes jobs from asyncio's thread, and gives their news back there. At most `max_waiting` texts wait beside those
    that are written."""

    def __init__(self, lanes: Mapping[str, Lane], max_waiting: int, rows: int) -> None:
        self.lanes = lanes
        self.n_open = 0  # texts without an end
        self.most_open = rows + max_waiting
        self._inbox: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="slm-serve engine", daemon=True)

    def start(self) -> None:
        """In the thread whose event loop asks."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def close(self) -> None:
        """After the step under way."""
        self._closed = True
        self._inbox.put(lambda: None)
        self._thread.join()

    @contextlib.asynccontextmanager
    async def begun(self, job: Job) -> AsyncIterator[None]:
        """`RequestError` where too many wait. Whoever leaves early frees the rows that the job has."""
        if len(job.texts) > self.most_open:
            raise RequestError(f"{len(job.texts)} texts at once; here are at most {self.most_open}: ask for fewer")
        if self.n_open + len(job.texts) > self.most_open:
            message = f"{self.n_open} texts are written or wait, of at most {self.most_open}; try again in a while"
            raise RequestError(message, 429, "queue_full", headers={"Retry-After": "1"})
        self.n_open += len(job.texts)
        lane = self.lanes[job.model]
        self._inbox.put(lambda: lane.add(job))
        try:
            yield
        finally:
            if job.left:
                self.n_open -= job.left
                job.left = 0
                self._inbox.put(lambda: lane.forget(job))

    def cut(self, job: Job) -> None:
        """End its texts as far as they are."""
        job.cut = True
        lane = self.lanes[job.model]
        self._inbox.put(lambda: lane.end(job))

    def _run(self) -> None:
        while True:
            busy = [lane for lane in self.lanes.values() if lane.busy]
            self._heed(wait=not busy)
            if self._closed:
                return
            news = [one for lane in self.lanes.values() if lane.busy for one in lane.step()]
            if news and self._loop is not None:
                with contextlib.suppress(RuntimeError):  # a loop that is closed hears nothing
                    self._loop.call_soon_threadsafe(self._hand_out, news)

    def _heed(self, wait: bool) -> None:
        with contextlib.suppress(queue.Empty):
            _done(self._inbox.get(block=wait))
            while True:
                _done(self._inbox.get_nowait())

    def _hand_out(self, news: Sequence[tuple[Job, News]]) -> None:
        for job, one in news:
            ended = job.left if isinstance(one, Broken) else int(isinstance(one, Finished) and job.left > 0)
            job.left -= ended
            self.n_open -= ended
            job.news.put_nowait(one)


def _done(asked: Callable[[], object]) -> None:
    try:
        asked()
    except Exception:  # the thread goes on: all other requests hang on it
        notice(traceback.format_exc())
