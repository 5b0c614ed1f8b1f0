"""Signals that ask a run to stop."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.trainer.connectors.signal_connector import _SignalConnector

from slm.errors import Stopped

NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")
"""Ctrl-C, what schedulers and systems send, and what Slurm can be told to send ahead of that (``--signal``)."""


class StopSignals:
    """Heeds the signals of `NAMES` for the length of a with block, those that are not ignored already.

    While `deferred` is true a signal is noted in `received`, and whoever set it true ends the run at a good place;
    else it ends at once, by `Stopped`, or `KeyboardInterrupt` for Ctrl-C. A second Ctrl-C always ends it at once.
    """

    def __init__(self) -> None:
        self.deferred = False
        self.received: str | None = None
        self._interrupts = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers to be set there alone
            for number in (getattr(signal, name) for name in NAMES if hasattr(signal, name)):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._heed)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _heed(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        self._interrupts += number == signal.SIGINT
        if number == signal.SIGINT and (self._interrupts > 1 or not self.deferred):
            raise KeyboardInterrupt
        if not self.deferred:
            raise Stopped(f"stopped by {name}")
        if self.received is None:
            self.received = name
            # not by print: it may be what the signal came into
            os.write(2, f"{name}: stops at the end of this step, then saves (Ctrl-C again: at once)\n".encode())


def leave_signals_alone(trainer: pl.Trainer) -> None:
    """Keep Lightning's own handlers out: they stop without saving, one rank alone asks the others from within the
    handler, and under Slurm a job is put back into the queue unasked."""
    trainer._signal_connector = _NoHandlers(trainer)


class _NoHandlers(_SignalConnector):
    def register_signal_handlers(self) -> None:
        """None."""
