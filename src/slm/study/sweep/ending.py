"""What a trial's process has come to, by its exit status, what it said and what the system did to it."""

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slm.errors import first_few
from slm.study.sweep.server import Ended
from slm.study.sweep.trials import Outcome, Trial
from slm.training.run.checkpoint_files import CHECKPOINTS, step_files
from slm.training.run.folder import read_summary

LOG_FILE = "log.txt"
FAILED = "failed"
"""In a message of a trial: what it failed of, beside ``mistake``."""

_DONE, _MISTAKE = 0, 2
_CAN_GO_ON = (75, 130)  # stopped by a signal
_MOST_KILLS = 3  # with nothing saved between
_SAID_BY = "slm-train: "


@dataclass(frozen=True)
class Process:
    """One start of a trial, as it was then."""

    run: Path
    log: Path
    log_begin: int  # bytes that earlier starts wrote
    memory: int | None  # bytes that it may take
    oom_kills: int | None  # of the whole machine by then

    @classmethod
    def of(cls, run: Path, memory: int | None) -> "Process":
        log = run / LOG_FILE
        return cls(run, log, log.stat().st_size if log.is_file() else 0, memory, oom_kills())

    def said(self) -> list[str]:
        """Lines of its log."""
        if not self.log.is_file():
            return []
        with self.log.open("rb") as content:
            content.seek(self.log_begin)
            return content.read().decode(errors="replace").splitlines()


def outcome_of(
    trial: Trial, process: Process, ended: Ended, messages: Sequence[Mapping[str, Any]], is_stopping: bool
) -> Outcome | tuple[int, int] | None:
    """How the trial ended; None if it is to be gone on with; if it was killed, how often with nothing saved between,
    and its last saved step.

    A process that was killed is gone on with, unless it was for want of memory, or thrice before it had saved anything
    more: whatever kills it there would do so for ever.
    """
    failed = next((message for message in messages if FAILED in message), None)
    if ended.status == _DONE:
        figures = read_summary(process.run)
        is_part = trial.stop_at is not None and figures.get("step") == trial.stop_at
        return Outcome("pruned" if is_part else "done", figures)
    if is_stopping and (ended.status in _CAN_GO_ON or ended.status < 0):
        return None
    if failed is not None:
        return Outcome("failed", error=failed[FAILED], mistake=failed["mistake"])
    if ended.status == _MISTAKE:
        return Outcome("failed", error=_last_words(process.said()), mistake=True)
    if ended.status < 0 or ended.status in _CAN_GO_ON:
        return _killed(trial, process, ended)
    lines = [line for line in process.said() if line.strip()]
    return Outcome("failed", error=lines[-1].strip() if lines else f"ended with status {ended.status}")


def _killed(trial: Trial, process: Process, ended: Ended) -> Outcome | tuple[int, int]:
    name = signal.Signals(-ended.status).name if ended.status < 0 else "a signal"
    taken = f"it took {ended.peak_bytes / 2**30:.1f} GiB"
    now = oom_kills()
    if (
        ended.status == -signal.SIGKILL
        and process.oom_kills is not None
        and now is not None
        and now > process.oom_kills
    ):
        return Outcome("failed", error=f"out of memory: the system killed it ({taken})", mistake=True)
    saved = max(step_files(process.run / CHECKPOINTS), default=0)
    before, saved_before = trial.kills
    times = before + 1 if saved <= saved_before else 1
    if times < _MOST_KILLS:
        return times, saved
    return Outcome(
        "failed",
        error=f"killed by {name} {times} times, the last saved step being {saved} ({taken}; too little memory?)",
        mistake=ended.status == -signal.SIGKILL,
    )


def _last_words(lines: Sequence[str]) -> str:
    """What the command said of a mistake, without its name, in one line."""
    said = [line.removeprefix(_SAID_BY) for line in lines if line.startswith(_SAID_BY)]
    return first_few(said, "; ", 8) if said else "see its log"


def oom_kills() -> int | None:
    """How many processes this machine has killed for want of memory, in containers too; None where it does not tell."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)
