"""Scaling laws, and their fit to many draws at once: loss as a sum of powers, with or without a floor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

HUBER_DELTA = 1e-3  # of residuals of log loss (Hoffmann et al. 2022, appendix D.3)
_EFFICIENT = 1.345  # Huber's delta in standard deviations: 95 % as efficient as least squares on normal noise
ENOUGH = 8  # points beyond the parameters, to tell of their residuals more than a mean square
_STEPS = 200
_NOTHING = 1e-16  # of Huber's loss: residuals of 1e-8
_EXPONENTS = (0.05, 0.15, 0.3, 0.6, 1.0)  # that fits start from
_FLOORS = (0.2, 0.6, 0.9)  # shares of the lowest loss
_SHARES = (0.1, 0.5, 0.9)  # of what is above the floor, of the first of two terms


@dataclass(frozen=True)
class Law:
    """``loss = floor + sum of scale_i * x_i ** -exponent_i``, of one or two `variables`."""

    variables: tuple[str, ...]
    has_floor: bool
    source: str

    @property
    def n_parameters(self) -> int:
        return 2 * len(self.variables) + self.has_floor

    @property
    def text(self) -> str:
        terms = [
            f"{scale} / {name[0].upper()}^{exponent}"
            for name, (scale, exponent) in zip(self.variables, _LETTERS, strict=False)
        ]
        return " + ".join([*(["E"] if self.has_floor else []), *terms])


_LETTERS = (("A", "α"), ("B", "β"))

KAPLAN = "Kaplan et al. 2020, eq. 1.1 to 1.3"
HENIGHAN = "Henighan et al. 2020, eq. 1.1"
HOFFMANN = "Hoffmann et al. 2022, eq. 2 (fitted anew by Besiroglu et al. 2024)"


@dataclass(frozen=True)
class Fitted:
    """Parameters as the fit has them: log scale and exponent of each term in turn, then the log of the floor; of log
    variables that `centre` was taken from."""

    values: Array  # (n_parameters,)
    errors: Array  # (n_parameters,), standard errors; inf where the points do not say
    observed: Array  # (n_points,), log loss
    predicted: Array  # (n_points,), of the fit
    jacobian: Array  # (n_points, n_parameters)
    centre: Array  # (n_variables,)
    delta: float

    def exponent(self, term: int) -> float:
        return float(self.values[2 * term + 1])


def log_loss(theta: Array, xs: Array, has_floor: bool) -> tuple[Array, Array]:
    """Log loss of parameters (..., p) at log variables (k, n): (..., n), and its derivatives (..., n, p)."""
    terms = [theta[..., 2 * i, None] - theta[..., 2 * i + 1, None] * x for i, x in enumerate(xs)]
    if has_floor:
        terms.append(np.broadcast_to(theta[..., -1:], terms[0].shape))
    stacked = np.stack(terms)  # (terms, ..., n)
    highest = stacked.max(0)
    weights = np.exp(stacked - highest)
    total = weights.sum(0)
    weights = weights / total
    columns = [column for i, x in enumerate(xs) for column in (weights[i], -weights[i] * x)]
    return highest + np.log(total), np.stack([*columns, *([weights[-1]] if has_floor else [])], -1)


def fit(law: Law, xs: Sequence[Array], loss: Array) -> Fitted:
    """The law that fits points best: Huber's loss of the log residuals, least from all starts of a grid.

    As Hoffmann et al. and Besiroglu et al., but for the search, which is Levenberg's and Marquardt's on all starts at
    once, and for Huber's delta: theirs is 1e-3, and 1.345 times the spread where points scatter more, so that the fit
    is efficient (Huber 1964). The spread is from the absolute residuals' median.

    Args:
        xs: of each variable its values, (n,).
        loss: (n,), in nats per token.
    """
    logs = np.log(np.stack(xs))
    centre = logs.mean(1)
    logs, target = logs - centre[:, None], np.log(loss)
    starts = _starts(law, target)
    best = _best(*search(starts, logs, np.broadcast_to(target, (len(starts), len(target))), law.has_floor, HUBER_DELTA))
    residuals = target - log_loss(best, logs, law.has_floor)[0]
    freedom = max(1, len(target) - law.n_parameters)
    if freedom >= ENOUGH:
        spread = 1.4826 * float(np.median(np.abs(residuals))) * (len(target) / freedom) ** 0.5
    else:  # a median of so few is too often next to nothing
        spread = float((residuals**2).sum() / freedom) ** 0.5
    delta = max(HUBER_DELTA, _EFFICIENT * spread)
    best = _best(*search(best[None], logs, target[None], law.has_floor, delta))
    predicted, jacobian = log_loss(best, logs, law.has_floor)
    errors = standard_errors(target - predicted, jacobian)
    return Fitted(best, errors, target, predicted, jacobian, centre, delta)


def standard_errors(residuals: Array, jacobian: Array) -> Array:
    """Of parameters (..., p), from residuals (..., n) and derivatives (..., n, p); inf where these say nothing."""
    n, p = jacobian.shape[-2:]
    variance = (residuals**2).sum(-1) / max(1, n - p)
    information = np.einsum("...ni,...nj->...ij", jacobian, jacobian)
    scale = np.sqrt(np.einsum("...ii->...i", information))
    scale = np.where(scale > 0, scale, 1.0)
    inverse = np.linalg.pinv(information / (scale[..., :, None] * scale[..., None, :]), rcond=1e-12, hermitian=True)
    told = np.einsum("...ii->...i", inverse)
    return np.where(told > 0, np.sqrt(np.abs(told) * variance[..., None]) / scale, np.inf)


def search(theta: Array, xs: Array, target: Array, has_floor: bool, delta: float) -> tuple[Array, Array]:
    """Least Huber losses of log residuals near starts: parameters (m, p) for targets (m, n), and their losses (m,).

    Levenberg's and Marquardt's steps on weighted squares, of all m at once; scipy's take one problem at a time.
    """
    theta, damping = theta.copy(), np.full(len(theta), 1e-3)
    predicted, jacobian = log_loss(theta, xs, has_floor)
    losses = _huber(target - predicted, delta)
    going = np.arange(len(theta))
    for _ in range(_STEPS):
        residuals, slopes = (target - predicted)[going], jacobian[going]
        tried = theta[going] + _step(residuals, slopes, damping[going], delta)
        now, slopes = log_loss(tried, xs, has_floor)
        found = _huber(target[going] - now, delta)
        better = np.isfinite(found) & (found <= losses[going])
        taken, gain = going[better], (losses[going] - found)[better]
        theta[taken], predicted[taken], jacobian[taken] = tried[better], now[better], slopes[better]
        settled = taken[gain <= 1e-12 * losses[taken] + _NOTHING]
        losses[taken] = found[better]
        damping[going] = np.clip(np.where(better, damping[going] / 5, damping[going] * 4), 1e-9, 1e12)
        going = going[~np.isin(going, settled) & (damping[going] < 1e10)]
        if not len(going):
            break
    return theta, losses


def _step(residuals: Array, jacobian: Array, damping: Array, delta: float) -> Array:
    weights = delta / np.maximum(np.abs(residuals), delta)
    weighted = jacobian * weights[..., None]
    information = np.einsum("mni,mnj->mij", weighted, jacobian)
    diagonal = np.einsum("mii->mi", information)
    extra = damping[:, None] * diagonal + 1e-12 * diagonal.max(1, keepdims=True) + 1e-300
    gradient = np.einsum("mni,mn->mi", weighted, residuals)
    return np.linalg.solve(information + extra[..., None] * np.eye(extra.shape[1]), gradient[..., None])[..., 0]


def _huber(residuals: Array, delta: float) -> Array:
    sizes = np.abs(residuals)
    inner = np.minimum(sizes, delta)
    return (inner * (sizes - inner / 2)).sum(-1)


def _best(theta: Array, losses: Array) -> Array:
    return theta[np.argmin(losses)]


def _starts(law: Law, target: Array) -> Array:
    """(m, p): at the centre of the points a floor, and the rest shared out over the terms."""
    k, lowest, usual = len(law.variables), float(np.exp(target.min())), float(np.exp(np.median(target)))
    floors = [share * lowest for share in _FLOORS] if law.has_floor else [0.0]
    shares = [(1.0,)] if k == 1 else [(share, 1 - share) for share in _SHARES]
    starts = []
    for floor, share, exponents in product(floors, shares, product(_EXPONENTS, repeat=k)):
        scales = [np.log(one * (usual - floor)) for one in share]
        pairs = [value for pair in zip(scales, exponents, strict=True) for value in pair]
        starts.append([*pairs, *([np.log(floor)] if law.has_floor else [])])
    return np.array(starts)
