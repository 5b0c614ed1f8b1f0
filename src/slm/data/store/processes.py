"""Tasks done by several processes, or by this one."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from slm.data.store.worker import Report, Task
from slm.errors import UserError

NumProcesses = int | Literal["auto"]

# Work is spread over processes; a library that did the same over threads would get in their way.
_ONE_THREAD = {
    "TOKENIZERS_PARALLELISM": "false",
    **dict.fromkeys(("RAYON_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
}


class StoppedError(UserError):
    """Work stopped for a reason that lies not in the data (memory, the disk): what is finished is kept."""


class Processes:
    """Does tasks, several at a time, in processes that are started when first needed and live until `close`.

    Args:
        wanted: how many processes; "auto" for one a processor. With one, or for a single task, this process works.
    """

    def __init__(self, wanted: NumProcesses) -> None:
        self.wanted = _processors() if wanted == "auto" else wanted
        self._workers: list[_Worker] = []

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes, whatever they do."""
        for worker in self._workers:
            worker.end()
        self._workers = []

    def run(self, tasks: Sequence[Task], report: Report) -> Iterator[tuple[int, Any]]:
        """(index, result) of each task, as they get done; started in their order.

        Raises:
            Exception: what the first of the tasks that failed raised, once those in work are done: the same one
                however many processes there are.
            StoppedError: a process was killed.
        """
        n_workers = min(self.wanted, len(tasks))
        if n_workers <= 1:
            yield from ((index, task.run(report)) for index, task in enumerate(tasks))
            return
        while len(self._workers) < n_workers:
            self._workers.append(_Worker())
        yield from _spread(tasks, self._workers[:n_workers], report)


def _spread(tasks: Sequence[Task], workers: Sequence[_Worker], report: Report) -> Iterator[tuple[int, Any]]:
    waiting = iter(enumerate(tasks))
    taking = threading.Lock()
    messages: queue.SimpleQueue[tuple[str, int, Any]] = queue.SimpleQueue()
    stopped = threading.Event()

    def serve(worker: _Worker) -> None:
        while not stopped.is_set():
            with taking:
                index, task = next(waiting, (-1, None))
            if task is None:
                break
            try:
                messages.put(("done", index, worker.run(task, lambda n: messages.put(("progress", 0, n)))))
            except Exception as error:
                stopped.set()
                messages.put(("failed", index, error))
        messages.put(("ended", 0, None))

    for worker in workers:
        threading.Thread(target=serve, args=(worker,), daemon=True).start()
    failures: dict[int, Exception] = {}
    serving = len(workers)
    try:
        while serving:
            kind, index, content = messages.get()
            if kind == "progress":
                report(content)
            elif kind == "done":
                yield index, content
            elif kind == "failed":
                failures[index] = content
            else:
                serving -= 1
    finally:
        stopped.set()
    if failures:
        raise failures[min(failures)]


class _Worker:
    """A process of `slm.data.store.worker`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from slm.data.store.worker import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **_ONE_THREAD, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

    def run(self, task: Task, report: Report) -> Any:
        """The task's result; blocks."""
        try:
            self._send(task)
            while True:
                kind, content = pickle.load(self._process.stdout)  # type: ignore[arg-type]
                if kind == "progress":
                    report(content)
                elif kind == "done":
                    return content
                else:
                    error, where = content
                    raise error from RuntimeError(f"in another process:\n{where}")
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            raise StoppedError(_how_it_ended(self._process.wait())) from None

    def end(self) -> None:
        """Now."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):
                stream.close()  # type: ignore[union-attr]

    def _send(self, what: Any) -> None:
        pickle.dump(what, self._process.stdin)  # type: ignore[arg-type]
        self._process.stdin.flush()  # type: ignore[union-attr]


def _how_it_ended(status: int) -> str:
    if status < 0:
        return f"a process that tokenized was killed (signal {-status}); too little memory? give fewer: num_processes=1"
    return f"a process that tokenized ended with status {status}; what it said is above"


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
