"""Scaling laws: the fit is the best there is, its intervals hold the truth, and points that say too little are told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

from slm.study.ladder import rules
from slm.study.ladder.fits import LAWS, Rung, fit_law, fit_laws
from slm.study.ladder.intervals import bootstrap
from slm.study.ladder.law import HOFFMANN, KAPLAN, Array, Law, fit, log_loss

POWER = Law(("flops",), False, KAPLAN)
FLOOR = Law(("flops",), True, KAPLAN)
BOTH = Law(("parameters", "tokens"), True, HOFFMANN)
SIZES = np.geomspace(3e5, 3e7, 6)
TRUTHS: dict[Law, tuple[list[float], list[Array]]] = {
    POWER: ([3.0, 0.07], [np.geomspace(1e12, 1e16, 6)]),
    FLOOR: ([5.0, 0.15, 0.5], [np.repeat(np.geomspace(1e12, 1e16, 6), 2)]),
    BOTH: ([6.0, 0.34, 6.0, 0.28, 0.5], [np.repeat(SIZES, 5), np.repeat(SIZES, 5) * np.tile([5, 10, 20, 40, 80], 6)]),
}
NOISE = 0.005  # of log loss: a seed's


def draw(law: Law, seed: int, noise: float = NOISE) -> tuple[list[Array], Array]:
    theta, xs = TRUTHS[law]
    told, _ = log_loss(np.array(theta), np.log(np.stack(xs)), law.has_floor)
    return xs, np.exp(told + noise * np.random.default_rng(seed).standard_normal(told.shape))


@pytest.mark.parametrize("law", TRUTHS)
def test_points_without_noise_give_the_law_back(law: Law) -> None:
    theta, xs = TRUTHS[law]
    fitted = fit(law, xs, draw(law, 0, noise=0.0)[1])
    found = [fitted.exponent(term) for term in range(len(xs))]
    assert found == pytest.approx(theta[1 : 2 * len(xs) : 2], rel=1e-4)


@pytest.mark.parametrize("law", TRUTHS)
def test_no_other_search_finds_less(law: Law) -> None:
    """Hoffmann et al.'s: L-BFGS on Huber's loss, from the truth."""
    theta, _ = TRUTHS[law]
    for seed in range(3):
        xs, loss = draw(law, seed)
        fitted = fit(law, xs, loss)
        logs = np.log(np.stack(xs)) - fitted.centre[:, None]

        def huber(
            values: Array, logs: Array = logs, loss: Array = loss, delta: float = fitted.delta
        ) -> tuple[float, Array]:
            told, slopes = log_loss(values, logs, law.has_floor)
            residuals = told - np.log(loss)
            inner = np.clip(residuals, -delta, delta)
            return float((inner * (residuals - inner / 2)).sum()), inner @ slopes

        start = np.array(theta)
        for term in range(len(xs)):
            start[2 * term] -= theta[2 * term + 1] * fitted.centre[term]
        other = minimize(
            huber, start, jac=True, method="L-BFGS-B", options={"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-12}
        )
        assert huber(fitted.values)[0] <= other.fun * (1 + 1e-6)


def share_held(law: Law, draws: int) -> Array:
    """Of each exponent, how often its interval holds it."""
    theta, held = TRUTHS[law][0], np.zeros(len(law.variables))
    for seed in range(draws):
        xs, loss = draw(law, seed)
        fitted = fit(law, xs, loss)
        low, high = bootstrap(law, fitted, np.log(np.stack(xs)) - fitted.centre[:, None], 10**6 + seed)
        held += [low[place] <= theta[place] <= high[place] for place in range(1, 2 * len(held), 2)]
    return held / draws


def test_intervals_hold_the_exponents() -> None:
    """Of so few draws that it takes seconds."""
    assert share_held(FLOOR, 30).min() >= 0.87
    assert share_held(POWER, 30).min() >= 0.87
    assert share_held(BOTH, 4).min() >= 0.75


@pytest.mark.nightly
@pytest.mark.parametrize("law", TRUTHS)
def test_intervals_hold_the_exponents_in_300_draws(law: Law) -> None:
    """Plain percentiles of resamples held them in 80 to 93 %."""
    assert share_held(law, 300).min() >= 0.93


def test_one_run_that_went_wrong_moves_little() -> None:
    """Huber's loss; least squares would give the exponent away to it."""
    xs, loss = draw(BOTH, 1)
    before, loss[7] = fit(BOTH, xs, loss).values, 3 * loss[7]
    after = fit(BOTH, xs, loss).values
    assert abs(after[1] - before[1]) < 0.05


# ---- what the points do not carry ----


def columns(law: Law, seed: int = 0) -> Mapping[str, Any]:
    xs, loss = draw(law, seed)
    return {**dict(zip(law.variables, xs, strict=True)), "loss": loss}


def test_points_that_carry_a_law() -> None:
    for law in TRUTHS:
        found = fit_law(law, columns(law))
        assert found.is_carried, found.problems
        for exponent in found.exponents:
            assert exponent.low < exponent.value < exponent.high


def test_a_law_says_the_losses_that_it_was_fitted_to() -> None:
    given = columns(BOTH)
    found = fit_law(BOTH, given)
    said = [found.loss(*x) for x in zip(given["parameters"], given["tokens"], strict=True)]
    assert said == pytest.approx(given["loss"], rel=0.02)


@pytest.mark.parametrize(
    ("law", "changed", "why"),
    [
        (POWER, {"flops": [1e12, 1e13, 1e14], "loss": [3.0, 2.5, 2.0]}, "3 runs for 2 numbers: it takes 4 or more"),
        (POWER, {"flops": [1e12, 1e13] * 3, "loss": [3.0, 2.5] * 3}, "2 different values of flops"),
        (
            BOTH,
            {"parameters": SIZES, "tokens": 20 * SIZES, "loss": np.geomspace(4, 3, 6)},
            "6 runs for 5 numbers: it takes 7 or more",
        ),
        (
            BOTH,
            {
                "parameters": np.tile(SIZES, 2),
                "tokens": 20 * np.tile(SIZES, 2),
                "loss": np.tile(np.geomspace(4, 3, 6), 2),
            },
            "parameters and tokens grow together: train each size on several numbers of tokens",
        ),
        (
            POWER,
            {"flops": np.geomspace(1e12, 1e16, 6), "loss": [3.0, 3.01, 2.99, 3.0, 3.01, 2.99]},
            "the loss does not fall for certain",
        ),
        (POWER, columns(FLOOR), "the points bend"),
    ],
)
def test_what_points_do_not_carry_is_said(law: Law, changed: Mapping[str, Any], why: str) -> None:
    found = fit_law(law, {name: np.array(values, dtype=float) for name, values in changed.items()})
    assert not found.is_carried
    assert any(why in problem for problem in found.problems), found.problems


def test_all_laws_of_a_ladder() -> None:
    """Each size on its own tokens: one variable at a time is carried, both together are not."""
    rungs = [Rung(n, 20 * n, 120 * n * n, float(1.5 + 40 * n**-0.3)) for n in SIZES for _ in range(2)]
    found = {(one.law.variables, one.law.has_floor): one for one in fit_laws(rungs)}
    assert len(found) == len(LAWS) == 7
    assert found[("flops",), True].is_carried
    assert found[("flops",), True].exponents[0].value == pytest.approx(0.15, abs=0.01)
    assert not found[("parameters", "tokens"), True].is_carried


# ---- rules ----


def test_rules_give_what_their_sources_do() -> None:
    """nanochat's depth 20 is 1,280 wide, Chinchilla had 20 tokens a parameter, Step Law's batch is 0.58 D^0.571."""
    assert rules.width(20) == 1280
    assert rules.parameters(4) == 12 * 4 * 256**2
    assert rules.tokens(4) == 20 * rules.parameters(4)
    depth, seq_len = 12, 128
    batch = rules.windows(depth, seq_len) * seq_len
    assert batch == pytest.approx(0.58 * rules.tokens(depth) ** 0.571, rel=0.01)
    assert batch * rules.steps(depth, seq_len) == pytest.approx(rules.tokens(depth), rel=0.001)


@pytest.mark.parametrize("depth", [1, 2, 3, 7])
def test_rules_give_whole_micro_batches_at_any_depth(depth: int) -> None:
    assert rules.windows(depth, 1024) % 8 == 0
    assert rules.steps(depth, 1024) >= 1
