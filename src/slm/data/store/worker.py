"""A process that does the tasks its parent sends it, one after another, and ends when the parent does.

Started as a program of its own and not by `multiprocessing`, whose children import the parent's main module again: a
notebook's or a training run's would bring torch, and one without a guard would start itself.

From the parent come pickled tasks; to it go pairs: ``("progress", n)``, ``("done", result)`` or ``("failed", error)``.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, BinaryIO, Protocol

Report = Callable[[int], None]
"""Is told how many more bytes are done."""


class Task(Protocol):
    """Work that can be sent to another process."""

    def run(self, report: Report) -> Any:
        """Do it."""


def main() -> None:
    """The program: results go where stdout went, and what is printed to stderr."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told, and ends this
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(sys.stdin.buffer, tasks), daemon=True).start()
    while True:
        _send(answers, *_outcome(tasks.get(), answers))


def _receive(stream: BinaryIO, tasks: queue.SimpleQueue[Task]) -> None:
    """A thread of its own, so that the parent's end is noticed at once, in the middle of a task too."""
    try:
        while True:
            tasks.put(pickle.load(stream))
    except EOFError:
        os._exit(0)
    except BaseException:  # a task that cannot be unpickled here
        traceback.print_exc()
        os._exit(1)


def _outcome(task: Task, answers: BinaryIO) -> tuple[str, Any]:
    try:
        return "done", task.run(lambda n: _send(answers, "progress", n))
    except Exception as error:
        return "failed", _sendable(error)


def _sendable(error: Exception) -> tuple[Exception, str]:
    """And where it arose, which pickle drops."""
    text = traceback.format_exc()
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(repr(error)), text
    return error, text


def _send(answers: BinaryIO, *message: Any) -> None:
    try:
        pickle.dump(message, answers)
        answers.flush()
    except BrokenPipeError:
        os._exit(0)
