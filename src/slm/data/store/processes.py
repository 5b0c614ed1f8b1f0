"""Tasks done by several processes, or by this one."""

import functools
import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol

from slm.errors import UserError

NumProcesses = int | Literal["auto"]
Report = Callable[[int], None]  # is told how many more bytes are done
_REPORT_EVERY_S = 0.2

_ENVIRONMENT = {  # work is spread over processes; a library that did the same over threads would get in their way
    "TOKENIZERS_PARALLELISM": "false",
    **dict.fromkeys(("RAYON_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "LOKY_MAX_MEMORY_LEAK_SIZE": "1e18",  # a tokenizer of 300 MB is no leak
}


class StoppedError(UserError):
    """Work stopped for a reason that lies not in the data (memory, the disk): what is finished is kept."""


class Task(Protocol):
    """Work that can be sent to another process."""

    def run(self, report: Report) -> Any: ...


class Processes(AbstractContextManager["Processes"]):
    """Does tasks in `wanted` processes, or one a processor, that are started when first needed and live until `close`.
    With one, or for a single task, this process works."""

    def __init__(self, wanted: NumProcesses) -> None:
        from loky import cpu_count

        self._wanted = cpu_count() if wanted == "auto" else wanted  # fewer in a container, or in a cluster's job
        self._n_workers = 0
        self._executor: Any = None
        self._reports: Any = None

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes, whatever they do."""
        if self._executor is not None:
            self._executor.shutdown(kill_workers=True)
            self._executor, self._n_workers = None, 0

    def run(self, tasks: Sequence[Task], report: Report) -> Iterator[tuple[int, Any]]:
        """(index, result) of each task as it gets done; started in their order. Raises what the first that failed did,
        once those in work are done: the same one with any number of processes. `StoppedError`: a process was killed."""
        n_workers = min(self._wanted, len(tasks))
        if n_workers <= 1:
            yield from ((index, task.run(report)) for index, task in enumerate(tasks))
            return
        from loky.process_executor import TerminatedWorkerError

        self._start(n_workers)
        try:
            yield from self._spread(tasks, report)
        except TerminatedWorkerError as error:
            found = re.search(r"\(-(\d+)\)", str(error))  # of "SIGKILL(-9)"
            signalled = f" (signal {found[1]})" if found else ""
            raise StoppedError(
                f"a process that tokenized was killed{signalled}; too little memory? give fewer: num_processes=1"
            ) from None

    def _spread(self, tasks: Sequence[Task], report: Report) -> Iterator[tuple[int, Any]]:
        waiting = iter(enumerate(tasks))
        working: dict[Future[Any], int] = {}
        failures: dict[int, BaseException] = {}
        while True:
            while not failures and len(working) < self._n_workers and (task := next(waiting, None)):
                working[self._executor.submit(_run, task[1])] = task[0]
            if not working:
                break
            done, _ = wait(working, timeout=_REPORT_EVERY_S, return_when=FIRST_COMPLETED)
            while not self._reports.empty():
                report(self._reports.get())
            for future in done:
                index, error = working.pop(future), future.exception()
                if error is None:
                    yield index, future.result()
                else:
                    failures[index] = error
        if failures:
            raise failures[min(failures)]

    def _start(self, n_workers: int) -> None:
        if n_workers > self._n_workers:
            from loky import ProcessPoolExecutor
            from loky.backend import get_context

            self.close()
            self._n_workers, self._reports = n_workers, get_context("loky").SimpleQueue()
            begin = (os.getpid(), self._reports)
            self._executor = ProcessPoolExecutor(n_workers, initializer=_begin, initargs=begin, env=_ENVIRONMENT)


_reports: Any = None  # of a process of loky's


def _begin(parent: int, reports: Any) -> None:
    global _reports
    _reports = reports
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told, and ends this
    os.dup2(2, 1)  # the parent's stdout is for its result
    end_with(parent)


@functools.cache
def end_with(parent: int) -> None:
    """End this process, in the middle of a task too, once the one that started it, `parent`, has ended."""

    def watch() -> None:
        above = multiprocessing.parent_process()
        if os.name == "nt" and above is not None:  # where a process keeps the number of a parent that has ended
            above.join()
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _run(task: Task) -> Any:
    return task.run(_reports.put)
