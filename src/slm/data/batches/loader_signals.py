"""Loader processes leave the signals that stop a run to the run."""

from __future__ import annotations

import os
import signal
import threading

_NOT_THEIRS = ("SIGINT", "SIGUSR1", "SIGUSR2")


def leave_signals_to_the_run(worker: int) -> None:
    """Called in each loader process as it begins.

    A terminal and Slurm signal all processes of a run. If the loaders died of it, the run could not finish its step. So
    a loader heeds SIGTERM only from the run itself, which ends its loaders so; for other senders, it ends when the
    run does.
    """
    for name in _NOT_THEIRS:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS, where a loader dies of SIGTERM
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_heed_the_run, daemon=True).start()


def _heed_the_run() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
