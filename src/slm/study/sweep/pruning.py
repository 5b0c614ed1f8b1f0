"""Which settings are stopped, at a validation of one of their runs.

Like is compared with like: the mean over those seeds that have come this far, with the same seeds' mean of every other
setting at the same step (or after the same time in training).
"""

import math
import warnings
from bisect import bisect_left
from collections.abc import Sequence
from typing import Literal

import optuna
from optuna.pruners import MedianPruner, WilcoxonPruner
from optuna.trial import TrialState, create_trial

from slm.study.sweep.settings import Setting
from slm.study.sweep.trials import Report

Rule = Literal["none", "median", "asha", "wilcoxon"]
By = Literal["step", "time"]

STARTUP = 4  # settings that are seen to the end before the median is one
WARMUP = 1 / 8  # of a run, before which a median says little
ETA, RUNGS = 3, 2  # at 1/9 and 1/3 of a run the best third goes on: ASHA (Li et al. 2020, arXiv:1810.05934)


def is_pruned(rule: Rule, by: By, mine: Setting, others: Sequence[Setting], now: Report) -> bool:
    """Whether setting `mine`, one of whose runs has just reported `now`, is to be stopped; never at a run's end."""
    if rule == "none" or now.step >= now.steps or not math.isfinite(now.loss):
        return False
    if rule == "wilcoxon":
        return _by_pairs(mine, others)
    at = _resource(now, by)
    seeds = [trial.seed for trial in mine.trials if _loss_at(trial.reports, at, by) is not None]
    if rule == "median":
        return _below_median(mine, others, seeds, now, by)
    earlier = [at_report for at_report in _means(mine, seeds, by) if at_report[0] < at]
    return _below_rung(mine, others, seeds, now, by, [at for at, _ in earlier])


# ---- rules ----


def _below_rung(
    mine: Setting, others: Sequence[Setting], seeds: Sequence[str | None], now: Report, by: By, earlier: Sequence[float]
) -> bool:
    """At the first validation past a rung: whether it is not among the best of those that have come there."""
    end = _end(mine, others, now, by)
    at = _resource(now, by)
    rungs = [end / ETA**k for k in range(1, RUNGS + 1)]
    if end <= 0 or not any(at >= rung and all(before < rung for before in earlier) for rung in rungs):
        return False
    value = _mean_at(mine, seeds, at, by)
    rivals = [loss for other in others if (loss := _mean_at(other, seeds, at, by)) is not None]
    n_go_on = max(1, (len(rivals) + 1) // ETA)
    return value is not None and sum(loss < value for loss in rivals) >= n_go_on


def _below_median(mine: Setting, others: Sequence[Setting], seeds: Sequence[str | None], now: Report, by: By) -> bool:
    """Optuna's rule: its best loss so far is above the median, at this step, of the settings that are done."""
    at = _resource(now, by)
    if now.step < WARMUP * now.steps:
        return False
    study = optuna.create_study(pruner=MedianPruner(n_startup_trials=STARTUP))
    for other in others:
        loss = _mean_at(other, seeds, at, by)
        if other.state == "done" and other.loss is not None and loss is not None:
            study.add_trial(create_trial(value=other.loss, intermediate_values={now.step: loss}))
    so_far = [loss for reached, loss in _means(mine, seeds, by) if reached <= at]
    if not so_far:
        return False
    running = create_trial(state=TrialState.RUNNING, intermediate_values={now.step: min(so_far)})
    return study.pruner.prune(study, running)


def _by_pairs(mine: Setting, others: Sequence[Setting]) -> bool:
    """Optuna's rule: that its losses are higher than the best setting's, pair by pair of seed and step, is no chance
    (a signed-rank test at 10 %). Neighbouring steps of a run are not independent, so that is an approximation."""
    done = [other for other in others if other.state == "done" and other.loss is not None]
    if not done:
        return False
    best = min(done, key=lambda other: other.loss or math.inf)
    keys = {(trial.seed, report.step) for trial in best.trials for report in trial.reports}
    number = {key: index for index, key in enumerate(sorted(keys, key=str))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(pruner=WilcoxonPruner(p_threshold=0.1, n_startup_steps=4))
    study.add_trial(create_trial(value=best.loss, intermediate_values=_pairs(best, number)))
    if len(mine_pairs := _pairs(mine, number)) < 4:
        return False
    return study.pruner.prune(study, create_trial(state=TrialState.RUNNING, intermediate_values=mine_pairs))


# ---- losses of a setting at a step, or a time ----


def _pairs(setting: Setting, number: dict[tuple[str | None, int], int]) -> dict[int, float]:
    values = {(trial.seed, report.step): report.loss for trial in setting.trials for report in trial.reports}
    return {number[key]: loss for key, loss in values.items() if key in number}


def _resource(report: Report, by: By) -> float:
    return report.step if by == "step" else report.seconds


def _end(mine: Setting, others: Sequence[Setting], now: Report, by: By) -> float:
    """What a whole run takes: its steps, or as many seconds as the settings that are done took at the median."""
    if by == "step":
        return now.steps
    done = sorted(trial.reports[-1].seconds for other in others for trial in other.trials
                  if trial.state == "done" and trial.reports)  # fmt: skip
    return done[len(done) // 2] if done else 0.0


def _means(setting: Setting, seeds: Sequence[str | None], by: By) -> list[tuple[float, float]]:
    """(step or time, mean loss) at every report of the setting that all of `seeds` have come to."""
    places = sorted({_resource(report, by) for seed in seeds for report in setting.reports(seed)})
    found = [(at, _mean_at(setting, seeds, at, by)) for at in places]
    return [(at, loss) for at, loss in found if loss is not None]


def _mean_at(setting: Setting, seeds: Sequence[str | None], at: float, by: By) -> float | None:
    losses = [loss for seed in seeds if (loss := _loss_at(setting.reports(seed), at, by)) is not None]
    return sum(losses) / len(losses) if seeds and len(losses) == len(seeds) else None


def _loss_at(reports: Sequence[Report], at: float, by: By) -> float | None:
    """The loss of the report at a step; at a time between two reports what lies between their losses. None if the run
    has not come to it."""
    places = [_resource(report, by) for report in reports]
    index = bisect_left(places, at)
    if index == len(places):
        return None
    after = reports[index]
    if places[index] == at:
        return after.loss
    if by == "step" or index == 0:
        return None
    before = reports[index - 1]
    share = (at - before.seconds) / (after.seconds - before.seconds)
    return before.loss + share * (after.loss - before.loss)
