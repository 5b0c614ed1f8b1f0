"""The order of training windows: a new permutation an epoch, reached at any position."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from slm.data.batches.order import window_at

seeds = st.integers(-(2**63), 2**64 - 1)


def epoch(number: int, n_windows: int, seed: int) -> np.ndarray:
    return window_at(np.arange(number * n_windows, (number + 1) * n_windows), n_windows, seed)


def test_every_window_once_an_epoch_for_every_small_number() -> None:
    for n_windows in range(1, 300):
        assert np.array_equal(np.sort(epoch(1, n_windows, 5)), np.arange(n_windows)), n_windows


@given(n_windows=st.integers(1, 10_000), seed=seeds, number=st.integers(0, 2**40))
@example(n_windows=4**6, seed=0, number=0)
@example(n_windows=4**6 + 1, seed=0, number=0)
@settings(max_examples=50, deadline=None)
def test_every_window_once_an_epoch(n_windows: int, seed: int, number: int) -> None:
    found = epoch(number, n_windows, seed)
    assert found.dtype == np.int64
    assert np.array_equal(np.sort(found), np.arange(n_windows))


def test_a_corpus_of_any_size() -> None:
    """Nothing is stored: an epoch of ten million million windows is as cheap."""
    found = window_at(np.arange(10_000) + 3 * 10**13, 10**13, 0)
    assert len(np.unique(found)) == 10_000
    assert 0 <= found.min() < found.max() < 10**13


@given(n_windows=st.integers(1, 500), seed=seeds, positions=st.lists(st.integers(0, 2**50), min_size=1, max_size=20))
@settings(max_examples=50, deadline=None)
def test_many_at_once_are_each_by_itself(n_windows: int, seed: int, positions: list[int]) -> None:
    """In any order and of several epochs: how many are asked for together changes nothing."""
    asked = np.array(positions)
    singly = [window_at(np.array([position]), n_windows, seed).item() for position in positions]
    assert window_at(asked, n_windows, seed).tolist() == singly
    assert asked.tolist() == positions


def test_every_epoch_of_every_seed_has_its_own_order() -> None:
    """Also seed 1 from its first epoch and seed 0 from its second: were they added, sweeps over seeds would
    train on the same orders, one epoch apart."""
    orders = {tuple(epoch(number, 40, seed)) for seed in range(-20, 20) for number in range(40)}
    assert len(orders) == 40 * 40


def excess(counts: np.ndarray) -> float:
    """Chi-squared of `counts` against all equal, in standard deviations above what chance gives."""
    freedom = counts.size - 1
    chi_squared = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
    return (chi_squared - freedom) / np.sqrt(2 * freedom)


def places_and_successors(n_windows: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """How often each window is at each place, and how often each follows each, one and two later.

    Over 20,000 epochs of a fixed seed.
    """
    orders = window_at(np.arange(20_000 * n_windows), n_windows, 7).reshape(-1, n_windows)
    at = np.zeros((n_windows, n_windows))
    np.add.at(at, (np.arange(n_windows), orders), 1)
    follows = np.zeros((2, n_windows, n_windows))
    for distance in (1, 2):
        np.add.at(follows[distance - 1], (orders[:, :-distance], orders[:, distance:]), 1)
    return at, [counts[~np.eye(n_windows, dtype=bool)] for counts in follows]


@pytest.mark.parametrize("n_windows", [17, 40, 64])
def test_all_orders_are_equally_likely(n_windows: int) -> None:
    at, follows = places_and_successors(n_windows)
    assert max(map(excess, [at, *follows])) < 4


@pytest.mark.parametrize("n_windows", [5, 12, 16])
def test_the_orders_of_a_few_windows_are_nearly_so(n_windows: int) -> None:
    """Halves of two bits mix less well: up to 16 windows, some follow a certain other a tenth too often, which
    20,000 epochs show and no run does. Eight rounds would mend it, and change every order there is."""
    at, follows = places_and_successors(n_windows)
    assert excess(at) < 4
    for counts in follows:
        assert np.abs(counts / counts.mean() - 1).max() < 0.25


def test_a_long_epoch_is_well_mixed() -> None:
    """Neighbours come from anywhere; early positions hold late windows as well as early ones."""
    n_windows = 100_000
    order = epoch(0, n_windows, 7)
    limit = 4 / np.sqrt(n_windows)
    assert abs(np.corrcoef(order, np.arange(n_windows))[0, 1]) < limit
    for lag in (1, 2, 317):  # 317 by 317 is the square that the network halves
        assert abs(np.corrcoef(order[:-lag], order[lag:])[0, 1]) < limit
    cells = np.histogram2d(np.arange(n_windows), order, bins=50)[0]
    assert excess(cells) < 4


def test_the_order_never_changes() -> None:
    """A position in a checkpoint means the same sample to every later version and on every machine."""
    assert window_at(np.arange(12), 10, 1234).tolist() == [5, 0, 1, 9, 3, 4, 6, 8, 2, 7, 2, 1]
    assert window_at(np.arange(3) + 10**15, 10**9 + 7, -1).tolist() == [234419606, 363160152, 265293654]
