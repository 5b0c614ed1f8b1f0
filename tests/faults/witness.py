"""What a run is doing, seen from within, and the signal that meets it there."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl

PHASES = ("preparation", "first step", "step", "validation", "save", "end")


@dataclass(frozen=True)
class Kill:
    """When a process is sent a signal.

    Attributes:
        phase: of `PHASES`; or "file", to count the changes of files.
        nth: its n-th time, from 1.
        after: seconds from then on.
        signal: its name.
    """

    phase: str
    nth: int = 1
    after: float = 0.0
    signal: str = "SIGKILL"


class Watch:
    """Follows the phases of this process, and ends it."""

    def __init__(self) -> None:
        self.kill: Kill | None = None
        self.report: int | None = None  # a descriptor that the phase under way is written to
        self.folder = ""
        self.file_changes = 0
        self.steps = 0  # whole ones
        self._times: dict[str, int] = {}
        self._before_save = "preparation"

    def begin(self, kill: Kill | None, folder: str, report: int | None) -> None:
        """Watch from here on; files count that lie in `folder`."""
        self.kill, self.folder, self.report = kill, folder, report
        sys.addaudithook(self._heed)
        self.enter("preparation")

    def enter(self, phase: str) -> None:
        self._times[phase] = self._times.get(phase, 0) + 1
        self._note(phase)
        if self.kill is not None and (self.kill.phase, self.kill.nth) == (phase, self._times[phase]):
            threading.Thread(target=self._send, args=(self.kill,), daemon=True).start()

    def _note(self, phase: str) -> None:
        if phase != "save":
            self._before_save = phase
        if self.report is not None:
            os.pwrite(self.report, f"{phase:<12}".encode(), 0)

    def _heed(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Python tells of every change of a file before it is made."""
        if event == "open":
            place, _, flags = arguments
            if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR):
                return
        elif event in ("os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"):
            place = arguments[0]
        else:
            return
        if not isinstance(place, str | os.PathLike) or not os.path.abspath(place).startswith(self.folder):
            return
        self.file_changes += 1
        if self.kill is not None and self.kill.phase == "file" and self.kill.nth == self.file_changes:
            self._send(self.kill)
        if "/checkpoints/." in os.fspath(place):
            if event == "open":
                self.enter("save")
            elif event == "os.rename":
                self._note(self._before_save)

    def _send(self, kill: Kill) -> None:
        time.sleep(kill.after)
        before = self.steps
        os.kill(os.getpid(), getattr(signal, kill.signal))
        if self.report is not None:  # another thread may have made a step meanwhile
            os.pwrite(self.report, f"{before:8}{self.steps:8}".encode(), 12)


watch = Watch()


class Witness(pl.Callback):
    """Tells `watch` of the phases of training."""

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        watch.steps = trainer.global_step
        watch.enter("first step")

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, index: int) -> None:
        if index:
            watch.enter("step")

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        watch.steps = trainer.global_step

    def on_validation_start(self, *_: Any) -> None:
        watch.enter("validation")

    def on_validation_end(self, *_: Any) -> None:
        watch._note("step")

    def on_train_end(self, *_: Any) -> None:
        watch.enter("end")
