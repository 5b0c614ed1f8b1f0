"""A process that ends with the one that started it."""

import ctypes
import os
import signal
import sys

from slm.data.store import processes

_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with(parent: int) -> None:
    """End this process once `parent`, which started it, has ended: on Linux at once, by the kernel, and with no thread
    of its own, as a process that is to be forked must not have; elsewhere within a second."""
    if sys.platform != "linux":
        processes.end_with(parent)
        return
    ctypes.CDLL(None).prctl(_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it had ended before
        os.kill(os.getpid(), signal.SIGKILL)
