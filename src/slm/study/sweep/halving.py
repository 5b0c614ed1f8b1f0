"""Successive halving (Karnin et al. 2013) without a batch that waits (ASHA; Li et al. 2020, arXiv:1810.05934).

Every setting is trained to the first rung and paused there; the best of those that came to a rung go on to the next,
from their checkpoint. So none is judged by fewer rivals because it was tried early, and none is begun anew. Settings
that wait go before those that could go on: the more have come to a rung, the better is known who is good there.
"""

from collections.abc import Sequence

from slm.study.sweep.curves import By, curve_at
from slm.study.sweep.settings import Setting
from slm.study.sweep.trials import Report, Trial

RUNGS = ((1 / 9, 2 / 3), (1 / 3, 3 / 8))
"""Shares of a run, and which share of the settings that come there goes on: 43 % of all steps. A ninth tells little of
small models (their loss stands still there before they learn what a width is good for), so few are stopped by it."""


def pauses(trial: Trial, report: Report, by: By, run_s: float | None) -> bool:
    """Whether the trial, which has just reported, has come to its next rung. `run_s` is what a run takes, in seconds of
    training; where rungs are times and it is not known yet, none is come to."""
    if trial.rung >= len(RUNGS) or report.step >= report.steps:
        return False
    share, _ = RUNGS[trial.rung]
    if by == "step":
        return report.step >= share * report.steps
    return run_s is not None and report.seconds >= share * run_s


def loss_at_rung(trial: Trial, by: By, run_s: float | None) -> float:
    """Of a trial that has just come to its next rung; at a time between two reports what lies between their losses."""
    last = next((report for report in trial.reports if report.step == trial.stop_at), trial.reports[-1])
    if by == "step" or run_s is None:
        return last.loss
    loss = curve_at(trial.reports, RUNGS[trial.rung][0] * run_s, "time")
    return last.loss if loss is None else loss


def seconds_of_a_run(trials: Sequence[Trial]) -> float | None:
    """What the trial that was begun first would take, by its first report: one measure for all."""
    first = min(trials, key=lambda trial: (trial.place, trial.number), default=None)
    if first is None or not first.reports:
        return None
    report = first.reports[0]
    return report.seconds / report.step * report.steps


def going_on(settings: Sequence[Setting]) -> list[Trial]:
    """Paused trials that are to go on now: all seeds of settings that are among the best at their rung, of those that
    have come there with all their seeds. The highest rung first."""
    for rung in reversed(range(len(RUNGS))):
        there = [(loss, setting) for setting in settings if (loss := _loss_at(setting, rung)) is not None]
        there.sort(key=lambda one: (one[0], one[1].index))
        best = there[: max(1, round(len(there) * RUNGS[rung][1]))]
        paused = [trial for _, setting in best for trial in setting.trials if _is_paused_at(trial, rung)]
        if paused:
            return paused
    return []


def _loss_at(setting: Setting, rung: int) -> float | None:
    """The mean of its trials at a rung, but for those that failed; None if one has not come there yet."""
    alive = [trial for trial in setting.trials if trial.state != "failed"]
    losses = [trial.rung_losses[rung] for trial in alive if len(trial.rung_losses) > rung]
    return sum(losses) / len(losses) if losses and len(losses) == len(alive) else None


def _is_paused_at(trial: Trial, rung: int) -> bool:
    return trial.state == "paused" and trial.rung == rung + 1
