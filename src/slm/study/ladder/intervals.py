"""How far the parameters of a scaling law can be told from the points: bootstrap intervals."""

from __future__ import annotations

import numpy as np

from slm.study.ladder.law import ENOUGH, Array, Fitted, Law, log_loss, search, standard_errors

RESAMPLES = 999
CONFIDENCE = 0.95


def bootstrap(law: Law, fitted: Fitted, xs: Array, seed: int = 0, resamples: int = RESAMPLES) -> tuple[Array, Array]:
    """Lower and upper ends of the intervals of all parameters, each (n_parameters,), on the scale of `fitted`.

    Residuals are drawn anew about the fit, widened for what the fit took of them (Davison and Hinkley 1997, eq. 6.9),
    and each parameter is judged by its distance in standard errors ("bootstrap-t", Efron and Tibshirani 1993, section
    12.5): with ten points plain percentiles held the truth in 90 % of draws, where this held it in 95 %. Besiroglu et
    al. (2024) draw the points themselves, of which they have 240.

    Args:
        xs: log of the variables, (k, n), less ``fitted.centre``.
    """
    draws = np.random.default_rng(seed)
    target = fitted.predicted + _noise(fitted, draws, resamples)
    starts = np.broadcast_to(fitted.values, (resamples, law.n_parameters))
    theta, _ = search(starts, xs, target, law.has_floor, fitted.delta)
    predicted, jacobian = log_loss(theta, xs, law.has_floor)
    errors = standard_errors(target - predicted, jacobian)
    with np.errstate(invalid="ignore", divide="ignore"):
        distances = np.nan_to_num((theta - fitted.values) / errors, nan=0.0, posinf=0.0, neginf=0.0)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(distances, [tail, 1 - tail], axis=0, method="weibull")
    return fitted.values - high * fitted.errors, fitted.values - low * fitted.errors


def _noise(fitted: Fitted, draws: np.random.Generator, resamples: int) -> Array:
    """(resamples, n_points): residuals of the fit; where they are too few to stand for a distribution, normal ones."""
    n, p = fitted.jacobian.shape
    if n - p >= ENOUGH:
        return draws.choice(_widened(fitted), (resamples, n))
    deviation = np.sqrt(((fitted.observed - fitted.predicted) ** 2).sum() / max(1, n - p))
    return draws.normal(0.0, deviation, (resamples, n))


def _widened(fitted: Fitted) -> Array:
    """Residuals as large as those of points that the fit had not seen; their mean is 0."""
    leverage = np.einsum("ni,in->n", fitted.jacobian, np.linalg.pinv(fitted.jacobian))
    residuals = fitted.observed - fitted.predicted
    widened = residuals / np.sqrt(np.clip(1 - leverage, 0.05, None))
    return np.asarray(widened - widened.mean())
