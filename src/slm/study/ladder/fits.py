"""Which scaling laws the runs of a ladder carry, and how far."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from slm.study.ladder.intervals import bootstrap
from slm.study.ladder.law import HENIGHAN, HOFFMANN, KAPLAN, Array, Fitted, Law, fit
from slm.study.run_record import RunRecord

_ONE = ("flops", "parameters", "tokens")
LAWS = (
    *(Law((variable,), False, KAPLAN) for variable in _ONE),
    *(Law((variable,), True, HENIGHAN) for variable in _ONE),
    Law(("parameters", "tokens"), True, HOFFMANN),
)
_TOGETHER = 0.95  # correlation of two log variables from which on their terms cannot be told apart
_VAGUE = 0.5  # half an interval over its value, from which on it says little
_BENDS = 0.01  # chance of the bend that is found, if there were none


@dataclass(frozen=True)
class Rung:
    """A run: its size, what it read, what that cost, what it came to (validation loss, nats per token)."""

    parameters: float
    tokens: float
    flops: float
    loss: float


@dataclass(frozen=True)
class Interval:
    """A value, and where it lies in 95 % of such ladders."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class LawFit:
    """A law as the points have it. `problems` say why they do not carry it; where they are too few there is no fit."""

    law: Law
    points: int
    problems: tuple[str, ...]
    exponents: tuple[Interval, ...] = ()
    scales: tuple[float, ...] = ()
    floor: Interval | None = None
    spread: float = math.nan  # root of the mean square of the points' log residuals
    fitted: Fitted | None = field(default=None, repr=False)

    @property
    def is_carried(self) -> bool:
        return not self.problems

    def loss(self, *xs: float) -> float:
        """What the law says at a value of each variable."""
        terms = [a * x**-e.value for a, x, e in zip(self.scales, xs, self.exponents, strict=True)]
        return sum(terms) + (self.floor.value if self.floor else 0.0)


def rungs_of(runs: Sequence[RunRecord]) -> list[Rung]:
    """Of the runs that came to their end with a validation. Without a count of their own, FLOPs are 6 a parameter and
    token (Kaplan et al. 2020, section 2.1)."""
    rungs = []
    for run in runs:
        tokens, size = (run.metrics.tokens or [math.nan])[-1], run.parameters or math.nan
        each = run.flops_per_token if math.isfinite(run.flops_per_token) else 6.0 * size
        rung = Rung(float(size), tokens, each * tokens, run.best_val_loss)
        if run.state == "done" and all(math.isfinite(one) and one > 0 for one in vars(rung).values()):
            rungs.append(rung)
    return rungs


def is_ladder(rungs: Sequence[Rung]) -> bool:
    """Several sizes were trained."""
    return len({rung.parameters for rung in rungs}) > 1


def fit_laws(rungs: Sequence[Rung], laws: Sequence[Law] = LAWS) -> list[LawFit]:
    """Each of the laws, fitted and judged."""
    columns = {name: np.array([getattr(rung, name) for rung in rungs]) for name in (*_ONE, "loss")}
    return [fit_law(law, columns) for law in laws]


def fit_law(law: Law, columns: Mapping[str, Array]) -> LawFit:
    """The law of `columns`: its variables and ``loss``, each (n,)."""
    xs, loss = [columns[name] for name in law.variables], columns["loss"]
    if problems := _too_little(law, xs, len(loss)):
        return LawFit(law, len(loss), tuple(problems))
    fitted = fit(law, xs, loss)
    low, high = bootstrap(law, fitted, np.log(np.stack(xs)) - fitted.centre[:, None])
    terms = range(len(xs))
    exponents = tuple(Interval(fitted.exponent(i), float(low[2 * i + 1]), float(high[2 * i + 1])) for i in terms)
    scales = tuple(float(np.exp(fitted.values[2 * i] + fitted.exponent(i) * fitted.centre[i])) for i in terms)
    floor = Interval(*(float(np.exp(one[-1])) for one in (fitted.values, low, high))) if law.has_floor else None
    residuals = fitted.observed - fitted.predicted
    spread = float(np.sqrt((residuals**2).mean()))
    problems = [*_vague(law, exponents), *([] if law.has_floor else _bends(law, columns, residuals))]
    return LawFit(law, len(loss), tuple(problems), exponents, scales, floor, spread, fitted)


def _too_little(law: Law, xs: Sequence[Array], points: int) -> list[str]:
    """Why there is no fit at all."""
    problems, needed = [], law.n_parameters + 2
    if points < needed:
        problems.append(f"{points} runs for {law.n_parameters} numbers: it takes {needed} or more")
    wanted = 4 if law.has_floor else 3
    for name, values in zip(law.variables, xs, strict=True):
        if (distinct := len(np.unique(values))) < wanted:
            problems.append(f"{distinct} different values of {name}: it takes {wanted} or more")
    if len(xs) == 2 and not problems and abs(float(np.corrcoef(np.log(np.stack(xs)))[0, 1])) > _TOGETHER:
        first, second = law.variables
        problems.append(f"{first} and {second} grow together: train each size on several numbers of tokens")
    return problems


def _vague(law: Law, exponents: Sequence[Interval]) -> list[str]:
    problems = []
    for name, exponent in zip(law.variables, exponents, strict=True):
        between = f"the exponent of {name} lies anywhere between {exponent.low:.3f} and {exponent.high:.3f}"
        if exponent.low <= 0:
            problems.append(f"{between}: the loss does not fall for certain")
        elif exponent.high - exponent.low > 2 * _VAGUE * exponent.value:
            problems.append(f"{between}: more sizes, further apart, would tell")
    return problems


def _bends(law: Law, columns: Mapping[str, Array], residuals: Array) -> list[str]:
    """Whether a floor makes the residuals less than chance would (F test of the nested law)."""
    from scipy import stats

    bent = Law(law.variables, True, HENIGHAN)
    xs, freedom = [columns[name] for name in law.variables], len(residuals) - bent.n_parameters
    if _too_little(bent, xs, len(residuals)):
        return []
    fitted = fit(bent, xs, columns["loss"])
    left = float(((fitted.observed - fitted.predicted) ** 2).sum())
    gained = float((residuals**2).sum()) - left
    if left <= 0 or stats.f.sf(gained / (left / freedom), 1, freedom) > _BENDS:
        return []
    return ["the points bend: a power without a floor promises too much further on"]


def curve(found: LawFit, low: float, high: float, points: int = 60) -> list[tuple[float, float]]:
    """(x, loss) of a law of one variable, evenly on a log axis."""
    return [(float(x), found.loss(float(x))) for x in np.geomspace(low, high, points)]
