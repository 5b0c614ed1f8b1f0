"""The work on a study: trials are taken, started side by side, heard and ended, until nothing is left."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from slm.errors import Stopped
from slm.study.sweep.claims import Claim
from slm.study.sweep.ending import Process, outcome_of
from slm.study.sweep.halving import pauses, seconds_of_a_run
from slm.study.sweep.pruning import is_pruned
from slm.study.sweep.server import Ended, Said, ServerLostError, TrialServer
from slm.study.sweep.settings import settings_of
from slm.study.sweep.study import Study
from slm.study.sweep.trials import Outcome, Report, Trial
from slm.training.run.heard_signals import NAMES
from slm.training.run.lock import wait_until_free

_LISTEN_S = 0.2
_PATIENCE_S = 2.0  # between two looks at trials that others have
_MOST_LOSSES = 5  # of servers, with no trial ended between


class Watcher(Protocol):
    """Who is told what becomes of trials."""

    def began(self, trial: Trial, is_new: bool) -> None: ...
    def reported(self, trial: Trial, report: Report) -> None: ...
    def ended(self, trial: Trial, outcome: Outcome) -> None: ...
    def left(self, trial: Trial, why: str) -> None:
        """It is over for now, and can be gone on with."""


@dataclass
class _Running:
    trial: Trial
    claim: Claim
    process: Process
    messages: list[dict[str, Any]] = field(default_factory=list)  # all but its reports


@dataclass
class Sweeping:
    """One process's work on `study`.

    Args:
        command: the arguments of a trial that is to end after a step, or at its end (None).
        make_server: what trials are forked from; it starts at once.
        watchers: told of each trial.
        waits: for trials that others do, so as to take them up if those die.
    """

    study: Study
    command: Callable[[Trial, int | None], list[str]]
    make_server: Callable[[], TrialServer]
    watchers: list[Watcher]
    waits: bool = True
    _running: dict[int, _Running] = field(default_factory=dict, init=False)
    _signals: list[int] = field(default_factory=list, init=False)
    _passed_on: bool = field(default=False, init=False)
    _losses: int = field(default=0, init=False)
    _looked: float = field(default=0.0, init=False)  # when nothing was there to take

    def run(self) -> None:
        """Until nothing is left, here and (`waits`) elsewhere.

        Raises:
            Stopped: a signal came; all trials have saved.
            KeyboardInterrupt: Ctrl-C came twice; trials were ended at once.
        """
        with self._heeding():
            self._server = self.make_server()
            try:
                while self._is_at_work():
                    self._step()
            finally:
                self._server.close()
                for one in self._running.values():
                    one.claim.release()
        if self._signals:
            raise Stopped(f"stopped by {signal.Signals(self._signals[0]).name}; the same command goes on")

    def _step(self) -> None:
        try:
            if self._signals:
                self._pass_on()
            else:
                self._fill()
            for event in self._server.events(_LISTEN_S):
                self._handle(event)
        except ServerLostError:
            self._replace_server()

    def _is_at_work(self) -> bool:
        if self._running:
            return True
        if self._signals:
            return False
        return not self.study.is_over() and (self.waits or time.monotonic() - self._looked > _PATIENCE_S)

    # ---- begin ----

    def _fill(self) -> None:
        if self._looked and time.monotonic() - self._looked < _PATIENCE_S:
            return
        while len(self._running) < self.study.config.workers:
            taken = self.study.take()
            if taken is None:
                self._looked = time.monotonic()
                return
            self._looked = 0.0
            self._start(*taken)

    def _start(self, trial: Trial, claim: Claim) -> None:
        run = self.study.folder / trial.folder
        run.mkdir(parents=True, exist_ok=True)
        wait_until_free(run)  # of a process of before, which is about to end
        process = Process.of(run, self.study.config.memory_bytes)
        try:
            pid = self._server.start(self.command(trial, trial.stop_at), Path(self.study.asked.directory), process.log)
        except ServerLostError:
            claim.release()
            raise
        self._running[pid] = _Running(trial, claim, process)
        for watcher in self.watchers:
            watcher.began(trial, trial.state == "waiting")

    # ---- while it runs ----

    def _handle(self, event: Ended | Said) -> None:
        one = self._running.get(event.pid)
        if one is None:
            return
        if isinstance(event, Ended):
            del self._running[event.pid]
            self._end(one, event)
        elif "loss" in event.message:
            stop = self._hear(one, Report(**event.message))
            self._server.answer(event.pid, {"stop": stop})
        else:
            one.messages.append(event.message)

    def _hear(self, one: _Running, report: Report) -> bool:
        """Whether it is to stop here."""
        trials, config = self.study.trials, self.study.config
        trials.report(one.trial, report)
        for watcher in self.watchers:
            watcher.reported(one.trial, report)
        if config.pruner == "none" or report.step >= report.steps:
            return False
        known = trials.all()
        if config.pruner == "asha":
            stop = pauses(one.trial, report, config.prune_by, seconds_of_a_run(known))
        else:
            settings = settings_of(known)
            mine = next(setting for setting in settings if setting.index == one.trial.setting)
            others = [setting for setting in settings if setting is not mine]
            stop = mine.is_stopped or is_pruned(config.pruner, config.prune_by, mine, others, report)
        if stop:
            trials.stop(one.trial, report.step)
        return stop

    # ---- end ----

    def _end(self, one: _Running, ended: Ended) -> None:
        trial, why = self.study.trials.all()[one.trial.number], f"ended with status {ended.status}"
        try:
            outcome = outcome_of(trial, one.process, ended, one.messages, is_stopping=bool(self._signals))
            if isinstance(outcome, Outcome) and outcome.state == "done" and outcome.loss is None:
                outcome = self._without_loss(outcome)
            if isinstance(outcome, Outcome) and outcome.state == "pruned" and self.study.config.pruner == "asha":
                self.study.pause(trial, outcome.figures)
                outcome, why = None, f"paused at step {trial.stop_at}"
            if isinstance(outcome, Outcome):
                self._losses = 0
                self.study.trials.end(trial, outcome)
                for watcher in self.watchers:
                    watcher.ended(trial, outcome)
                return
            if outcome is not None:
                self.study.trials.killed(trial, *outcome)
            for watcher in self.watchers:
                watcher.left(trial, why)
        finally:
            one.claim.release()
            self._looked = 0.0

    def _without_loss(self, outcome: Outcome) -> Outcome:
        """A sweep that minimises cannot go by a trial that has no loss."""
        if self.study.config.kind != "tpe" and self.study.config.pruner == "none":
            return outcome
        reason = "no validation loss, which the sweep is to minimise (trainer.limit_val_batches, trainer.val_every)"
        return Outcome("failed", outcome.figures, reason, mistake=True)

    def _replace_server(self) -> None:
        """Its trials have ended with it, and are taken up again."""
        self._losses += 1
        if self._losses >= _MOST_LOSSES:
            raise RuntimeError(f"the process that trials are started from ended {self._losses} times; see its errors")
        self._server.close()
        for one in self._running.values():
            one.claim.release()
            for watcher in self.watchers:
                watcher.left(one.trial, "the process that it was forked from has ended")
        self._running.clear()
        if not self._signals:
            self._server = self.make_server()

    # ---- signals ----

    @contextmanager
    def _heeding(self) -> Iterator[None]:
        before = {
            number: signal.signal(number, self._heed) for name in NAMES if (number := getattr(signal, name, None))
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _heed(self, number: int, _: Any) -> None:
        self._signals.append(number)
        if self._signals.count(signal.SIGINT) > 1:
            raise KeyboardInterrupt("interrupted; the last saves count, and the same command goes on")

    def _pass_on(self) -> None:
        if not self._passed_on:
            self._passed_on = True
            for pid in self._running:
                self._server.signal(pid, self._signals[0])
