"""How threads that compute together wait for each other; see docs/architecture.md, "Cores that others want too"."""

import contextlib
import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

T = TypeVar("T")

PERIOD_S = 0.1
CROWDED, CALM = 0.1, 0.02  # shares of the time that a thread stood in the queue for a core
CALM_PERIODS = 20

_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
_begun_in: int | None = None  # the process; one that was forked has no other thread


def heed_others() -> str:
    """Begin to watch for other programs on the cores, where that is of use; how threads wait, in a few words."""
    global _begun_in
    if given := next((name for name in _VARIABLES if os.environ.get(name)), None):
        return f"by {given}={os.environ[given]}"
    if torch.get_num_threads() == 1:
        return "one thread"
    if not _has_gnu_openmp() or not _queued():
        return "as OpenMP has it"
    if _begun_in != os.getpid():
        _begun_in = os.getpid()
        threading.Thread(target=_watch, name="heed-others", daemon=True).start()
    return "awake, or asleep while other programs want the cores"


def apart(work: Callable[[], T]) -> T:
    """What `work` comes to in a thread of its own, whose team of threads ends with it. Teams are counted together, and
    where they have more threads than there are cores all wait asleep, which small products feel: so
    whoever computes in another thread later has no team left behind in this one."""
    done: list[T | BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:
            done.append(error)

    thread = threading.Thread(target=run, name="apart", daemon=True)
    thread.start()
    thread.join()
    if isinstance(done[0], BaseException):
        raise done[0]
    return done[0]


class Crowd:
    """Whether cores are short: told at once when they are, after a while when they no longer are."""

    def __init__(self) -> None:
        self.is_here = False
        self._calm = 0

    def heard(self, share: float) -> bool:
        """Whether cores are short now, after a period of which a thread stood this `share` in the queue for a core."""
        self._calm = self._calm + 1 if share < CALM else 0
        if share > CROWDED:
            self.is_here = True
        elif self._calm >= CALM_PERIODS:
            self.is_here = False
        return self.is_here


class Sleepers:
    """A team of threads that makes this process have more of them than cores, as long as it is kept."""

    def __init__(self) -> None:
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._sleep, name="sleepers", daemon=True)
        self._thread.start()

    def _sleep(self) -> None:
        missing = max(0, len(os.sched_getaffinity(0)) - torch.get_num_threads())
        library = ctypes.CDLL(None)
        library.GOMP_parallel(library.omp_get_num_threads, None, ctypes.c_uint(missing + 2), ctypes.c_uint(0))
        self._leave.wait()  # the team ends with the thread that called for it

    def dismiss(self) -> None:
        self._leave.set()
        self._thread.join()


def _watch() -> None:
    crowd, sleepers = Crowd(), None
    before, then = _queued(), time.perf_counter()
    while True:
        time.sleep(PERIOD_S)
        queued, now = _queued(), time.perf_counter()
        longest = max((waited - before.get(thread, waited) for thread, waited in queued.items()), default=0)
        if crowd.heard(longest / 1e9 / (now - then)):
            sleepers = sleepers or Sleepers()
        elif sleepers:
            sleepers.dismiss()
            sleepers = None
        before, then = queued, now


def _queued() -> dict[str, int]:
    # nanoseconds that each thread of this process was ready to run and had no core; empty where the system does not
    # tell; without threads that were told to stand back (the one that saves)
    found = {}
    for folder in Path("/proc/self/task").glob("*"):
        with contextlib.suppress(OSError, IndexError):  # a thread that has just ended, a kernel that does not count
            waited = int((folder / "schedstat").read_text().split()[1])
            if os.getpriority(os.PRIO_PROCESS, int(folder.name)) <= os.getpriority(os.PRIO_PROCESS, 0):
                found[folder.name] = waited
    return found


def _has_gnu_openmp() -> bool:
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return hasattr(library, "GOMP_parallel") and not hasattr(library, "kmp_set_blocktime")  # LLVM's has both
