"""Signals that ask a run to stop."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Collection
from types import FrameType
from typing import Any

from slm.errors import Stopped

NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")
"""Ctrl-C, what schedulers and systems send, and what Slurm can be told to send ahead of that (``--signal``)."""

_PATIENCE_S = 2.0  # for Python to take up a second Ctrl-C; one operation of a large model can take minutes
_INTERRUPTED_STATUS = 130


class StopSignals:
    """Heeds the signals of `NAMES` for the length of a with block, those that are not ignored already.

    While `deferred` is true a signal is noted in `received`, and whoever set it true ends the run at a good place;
    else it ends at once, by `Stopped`, or `KeyboardInterrupt` for Ctrl-C. A second Ctrl-C always ends it at once.

    Python calls a handler between two operations only. So a thread hears of signals too: it answers at once, and ends
    the process itself where a second Ctrl-C has not been taken up for two seconds.
    """

    def __init__(self) -> None:
        self.deferred = False
        self.received: str | None = None
        self._before: dict[int, Any] = {}
        self._heeded = 0  # Ctrl-C, as far as Python has come; two that came into one operation are one
        self._ears: _Ears | None = None

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers to be set there alone
            for number in (getattr(signal, name) for name in NAMES if hasattr(signal, name)):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._heed)
            self._ears = _Ears(self._before, lambda: self.deferred)
        return self

    def __exit__(self, *_: object) -> None:
        if self._ears is not None:
            self._ears.close()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _heed(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        self._heeded += number == signal.SIGINT
        again = max(self._heeded, self._ears.interrupts if self._ears else 0) > 1
        ends_now = not self.deferred or (number == signal.SIGINT and again)
        if ends_now and self._ears is not None:
            self._ears.taken_up.set()
        if ends_now:
            raise KeyboardInterrupt if number == signal.SIGINT else Stopped(f"stopped by {name}")
        self.received = self.received or name


class _Ears:
    """A thread that is woken by each signal as it comes (`signal.set_wakeup_fd`), whatever Python is doing."""

    listening: _Ears | None = None

    def __init__(self, heeded: Collection[int], is_deferred: Callable[[], bool]) -> None:
        self.interrupts = 0  # Ctrl-C so far
        self.taken_up = threading.Event()  # the main thread is on its way out
        self._heeded = heeded
        self._is_deferred = is_deferred
        self._answered = False
        self._here, self._there = socket.socketpair()
        self._there.setblocking(False)
        self._before = signal.set_wakeup_fd(self._there.fileno(), warn_on_full_buffer=False)
        _Ears.listening = self
        self._thread = threading.Thread(target=self._listen, name="signals", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer what has come, and hear no more."""
        signal.set_wakeup_fd(self._before)
        _Ears.listening = None
        self._there.shutdown(socket.SHUT_RDWR)  # to close it would not wake the thread: loaders have it open, too
        self._thread.join()
        self._there.close()
        self._here.close()

    def _listen(self) -> None:
        while numbers := self._here.recv(64):
            for number in numbers:
                if number in self._heeded:
                    self._hear(signal.Signals(number).name)

    def _hear(self, name: str) -> None:
        self.interrupts += name == "SIGINT"
        if self.interrupts > 1:
            threading.Thread(target=self._end, daemon=True).start()
        elif not self._answered:
            self._answered = True
            when = "at the end of this step, then saves" if self._is_deferred() else "after what is under way"
            if self._is_deferred() or not self.taken_up.wait(0.5):
                _say(f"{name}: stops {when} (Ctrl-C again: at once)")

    def _end(self) -> None:
        if self.interrupts > 2 or not self.taken_up.wait(_PATIENCE_S):
            _say("interrupted; the last save counts: resume=auto goes on")
            os._exit(_INTERRUPTED_STATUS)


def _hear_nothing() -> None:
    """In a process forked off, a loader: its signals are not the run's; a terminal sends Ctrl-C to all of them."""
    if _Ears.listening is not None:
        signal.set_wakeup_fd(-1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_hear_nothing)


def _say(line: str) -> None:
    os.write(2, f"{line}\n".encode())  # not by print: the main thread may be in the middle of one
