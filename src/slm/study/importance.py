"""Which settings the losses of a study hang on: PED-ANOVA, of a study that Optuna is told of these runs.

Watanabe, Bansal, Hutter 2023, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces".
(Optuna's fANOVA needs scikit-learn.)
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from slm.study.grouping import Group

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

FEWEST_GROUPS = 8
_FEWEST_GOOD = 5  # settings among the best, which Optuna's documentation asks for
_LOG_FROM = 10.0  # between the largest and the smallest: a rate, a width


def importance(groups: Sequence[Group]) -> dict[str, float]:
    """Setting -> its share, of 1, in being among the best settings of `groups`, the largest first; {} of too few
    settings to tell. Seeds count together: each group is one trial, of its mean."""
    keys = [key for key in groups[0].settings if len({str(group.settings[key]) for group in groups}) > 1]
    if len(groups) < FEWEST_GROUPS or not keys:
        return {}
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    kinds = {key: _distribution([group.settings[key] for group in groups]) for key in keys}
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study()
        for group in groups:
            values = {key: _value(group.settings[key], kind) for key, kind in kinds.items()}
            study.add_trial(optuna.create_trial(params=values, distributions=kinds, value=group.mean))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            evaluator = PedAnovaImportanceEvaluator(target_quantile=best_share(len(groups)))
        return dict(get_param_importances(study, evaluator=evaluator))
    finally:
        optuna.logging.set_verbosity(before)


def best_share(n_groups: int) -> float:
    """The share of the settings that count as the best."""
    return min(0.5, max(0.1, _FEWEST_GOOD / n_groups))


def _distribution(values: Sequence[Any]) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    numbers = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if len(numbers) < len(values):
        return CategoricalDistribution(sorted({str(value) for value in values}))
    low, high = float(min(numbers)), float(max(numbers))
    return FloatDistribution(low, high, log=low > 0 and high / low >= _LOG_FROM)


def _value(value: Any, kind: BaseDistribution) -> float | str:
    from optuna.distributions import FloatDistribution

    return float(value) if isinstance(kind, FloatDistribution) else str(value)
