"""Signals that ask a run to stop, heard at any time; `stops.StopOnSignal` saves and stops."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

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

    listening = False  # a thread is, in this process

    def __init__(self) -> None:
        self.deferred = False
        self.received: str | None = None
        self._numbers: set[int] = set()  # of the signals that are heeded
        self._heeded = 0  # Ctrl-C, as far as Python has come; two that came into one operation are one
        self._heard = 0  # Ctrl-C, as far as the thread has come
        self._answered = False
        self._taken_up = threading.Event()  # the main thread is on its way out
        self._undo = ExitStack()

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers to be set there alone
            for number in (getattr(signal, name) for name in NAMES if hasattr(signal, name)):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._undo.callback(signal.signal, number, signal.signal(number, self._heed))
                    self._numbers.add(number)
            self._undo.enter_context(self._thread())
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def _heed(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        self._heeded += number == signal.SIGINT
        again = max(self._heeded, self._heard) > 1
        if not self.deferred or (number == signal.SIGINT and again):
            self._taken_up.set()
            raise KeyboardInterrupt if number == signal.SIGINT else Stopped(f"stopped by {name}")
        self.received = self.received or name

    @contextmanager
    def _thread(self) -> Iterator[None]:
        """One that is woken by each signal as it comes (`signal.set_wakeup_fd`), whatever Python is doing."""
        here, there = socket.socketpair()
        there.setblocking(False)
        before = signal.set_wakeup_fd(there.fileno(), warn_on_full_buffer=False)
        thread = threading.Thread(target=self._listen, args=(here,), name="signals", daemon=True)
        thread.start()
        StopSignals.listening = True
        yield
        signal.set_wakeup_fd(before)
        StopSignals.listening = False
        there.shutdown(socket.SHUT_RDWR)  # to close it would not wake the thread: loaders have it open, too
        thread.join()  # it answers what has come
        there.close()
        here.close()

    def _listen(self, here: socket.socket) -> None:
        while numbers := here.recv(64):
            for number in numbers:
                if number in self._numbers:
                    self._hear(signal.Signals(number).name)

    def _hear(self, name: str) -> None:
        self._heard += name == "SIGINT"
        if self._heard > 1:
            threading.Thread(target=self._end, daemon=True).start()
        elif not self._answered:
            self._answered = True
            when = "at the end of this step, then saves" if self.deferred else "after what is under way"
            if self.deferred or not self._taken_up.wait(0.5):
                _say(f"{name}: stops {when} (Ctrl-C again: at once)")

    def _end(self) -> None:
        if self._heard > 2 or not self._taken_up.wait(_PATIENCE_S):
            _say("interrupted; the last save counts: resume=auto goes on")
            os._exit(_INTERRUPTED_STATUS)


def _hear_nothing() -> None:
    """In a process forked off, a loader: its signals are not the run's; a terminal sends Ctrl-C to all of them."""
    if StopSignals.listening:
        signal.set_wakeup_fd(-1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_hear_nothing)


def _say(line: str) -> None:
    os.write(2, f"{line}\n".encode())  # not by print: the main thread may be in the middle of one
