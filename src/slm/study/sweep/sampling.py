"""Which setting is tried next.

What is drawn is a function of the sweep's seed, the number of the setting and what is known of those before it: each
draw has a generator of its own, so that a sweep that was killed draws what an unbroken one does.
"""

import itertools
import random
import warnings
from collections.abc import Sequence
from typing import Literal

import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from slm.study.sweep.settings import Setting
from slm.study.sweep.space import Interval, Point, Space
from slm.study.sweep.trials import distribution, parameter

_TRIES = 200  # draws until a setting is new; then all are taken to have been tried
_STATES = {
    **dict.fromkeys(("waiting", "running"), TrialState.RUNNING),
    **dict.fromkeys(("paused", "pruned"), TrialState.PRUNED),
    "done": TrialState.COMPLETE,
    "failed": TrialState.FAIL,
}


def grid(space: Space, seed: int | None) -> list[tuple[int, Point]]:
    """Every combination with the place at which it is tried: its own, or with a `seed` a drawn one. A rule that stops
    what is worse than those before it learns nothing from rates that are tried from the worst to the best."""
    points = list(space.grid())
    places = list(range(len(points)))
    if seed is not None:
        random.Random(seed).shuffle(places)
    return list(zip(places, points, strict=True))


def draw(kind: Literal["random", "tpe"], space: Space, known: Sequence[Setting], seed: int) -> Point | None:
    """A setting that is none of those `known`; None if there are no more."""
    tried = [setting.point for setting in known]
    if len(tried) >= space.size:
        return None
    generators = (seed * 1_000_003 + len(known) * 1_009 + attempt for attempt in itertools.count())
    for generator in itertools.islice(generators, _TRIES):
        point = _ask(_sampler(kind, generator % 2**32), space, known)
        if point not in tried:
            return point
    return next((point for point in space.grid() if point not in tried), None) if _is_finite(space) else None


def _ask(sampler: BaseSampler, space: Space, known: Sequence[Setting]) -> Point:
    """What `sampler` makes of a study in memory that holds a trial a setting."""
    distributions = {one.key: distribution(one) for one in space.dimensions}
    study = optuna.create_study(sampler=sampler)
    study.add_trials([_as_trial(setting, space) for setting in known])
    asked = study.ask(distributions).params
    return {
        one.key: one.typed(asked[one.key]) if isinstance(one, Interval) else asked[one.key] for one in space.dimensions
    }


def _sampler(kind: Literal["random", "tpe"], seed: int) -> BaseSampler:
    with warnings.catch_warnings():  # its options are marked as experimental
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return RandomSampler(seed) if kind == "random" else TPESampler(seed=seed, multivariate=True, constant_liar=True)


def _as_trial(setting: Setting, space: Space) -> FrozenTrial:
    distributions = {one.key: distribution(one) for one in space.dimensions}
    loss, state = setting.loss, _STATES[setting.state]
    if state in (TrialState.COMPLETE, TrialState.PRUNED) and loss is None:
        state = TrialState.FAIL
    reports = [report for trial in setting.trials for report in trial.reports]
    return create_trial(
        state=state,
        value=loss if state in (TrialState.COMPLETE, TrialState.PRUNED) else None,
        params={key: parameter(value, distributions[key]) for key, value in setting.point.items()},
        distributions=distributions,
        intermediate_values={report.step: report.loss for report in reports} if state == TrialState.PRUNED else {},
    )


def _is_finite(space: Space) -> bool:
    return not any(isinstance(one, Interval) for one in space.dimensions)
