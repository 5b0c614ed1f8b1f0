"""Which settings are stopped, at a validation of one of their runs.

Like is compared with like: the mean over those seeds that have come this far, with the same seeds' mean of every other
setting at the same step (or after the same time in training).
"""

import math
import warnings
from collections.abc import Sequence
from typing import Literal

import optuna
from optuna.pruners import MedianPruner, WilcoxonPruner
from optuna.trial import TrialState, create_trial

from slm.study.sweep.curves import By, curve_at, place_of
from slm.study.sweep.settings import Setting
from slm.study.sweep.trials import Report

Rule = Literal["median", "wilcoxon"]

STARTUP = 4  # settings that are seen to the end before the median is one
WARMUP = 1 / 8  # of a run, before which a median says little


def is_pruned(rule: Rule, by: By, mine: Setting, others: Sequence[Setting], now: Report) -> bool:
    """Whether setting `mine`, one of whose runs has just reported `now`, is to be stopped; never at a run's end."""
    if now.step >= now.steps or not math.isfinite(now.loss):
        return False
    if rule == "wilcoxon":
        return _by_pairs(mine, others)
    at = place_of(now, by)
    seeds = [trial.seed for trial in mine.trials if curve_at(trial.reports, at, by) is not None]
    return _below_median(mine, others, seeds, now, by)


# ---- rules ----


def _below_median(mine: Setting, others: Sequence[Setting], seeds: Sequence[str | None], now: Report, by: By) -> bool:
    """Optuna's rule: its best loss so far is above the median, at this step, of the settings that are done."""
    at = place_of(now, by)
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
    return bool(study.pruner.prune(study, running))


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
    return bool(study.pruner.prune(study, create_trial(state=TrialState.RUNNING, intermediate_values=mine_pairs)))


# ---- losses of a setting at a step, or a time ----


def _pairs(setting: Setting, number: dict[tuple[str | None, int], int]) -> dict[int, float]:
    values = {(trial.seed, report.step): report.loss for trial in setting.trials for report in trial.reports}
    return {number[key]: loss for key, loss in values.items() if key in number}


def _means(setting: Setting, seeds: Sequence[str | None], by: By) -> list[tuple[float, float]]:
    """(step or time, mean loss) at every report of the setting that all of `seeds` have come to."""
    places = sorted({place_of(report, by) for seed in seeds for report in setting.reports(seed)})
    found = [(at, _mean_at(setting, seeds, at, by)) for at in places]
    return [(at, loss) for at, loss in found if loss is not None]


def _mean_at(setting: Setting, seeds: Sequence[str | None], at: float, by: By) -> float | None:
    losses = [loss for seed in seeds if (loss := curve_at(setting.reports(seed), at, by)) is not None]
    return sum(losses) / len(losses) if seeds and len(losses) == len(seeds) else None
