"""Sampling as distributions, against the definitions in plain Python."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from slm.generation.config import GenerationConfig
from slm.generation.sampling import greedy, keep_top_k, keep_top_p, next_token, sample

rows = st.lists(st.integers(-40, 40), min_size=1, max_size=12, unique=True)


def kept(logits: Tensor) -> set[int]:
    return {i for i, value in enumerate(logits.flatten().tolist()) if value > -math.inf}


@given(row=rows, k=st.integers(1, 15))
def test_top_k_keeps_the_k_largest_as_they_are(row: list[int], k: int) -> None:
    logits = torch.tensor([row], dtype=torch.float32) / 4
    expected = set(sorted(range(len(row)), key=lambda i: -row[i])[:k])
    masked = keep_top_k(logits, k)
    assert kept(masked) == expected
    assert all(masked[0, i] == logits[0, i] for i in expected)


def test_top_k_keeps_k_of_equals() -> None:
    """A threshold instead of a count would keep all six."""
    assert len(kept(keep_top_k(torch.zeros(1, 6), 2))) == 2


@given(row=rows, p=st.floats(0.01, 0.99))
def test_top_p_keeps_the_smallest_nucleus(row: list[int], p: float) -> None:
    """The likeliest tokens that reach p together and would not without the last of them; at least one."""
    logits = torch.tensor([row], dtype=torch.float32) / 4
    total = math.fsum(math.exp(value / 4) for value in row)
    order = sorted(range(len(row)), key=lambda i: -row[i])
    nucleus = kept(keep_top_p(logits, p))
    assert nucleus == set(order[: len(nucleus)])
    mass = [math.fsum(math.exp(row[i] / 4) for i in order[:n]) / total for n in (len(nucleus), len(nucleus) - 1)]
    assert mass[0] > p - 1e-5
    assert mass[1] < p + 1e-5
    assert nucleus


def test_top_p_takes_each_row_alone() -> None:
    logits = torch.tensor([[5.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    masked = keep_top_p(logits, 0.6)
    assert [len(kept(row)) for row in masked] == [1, 3]


def chi_square(drawn: Tensor, probabilities: Tensor) -> float:
    expected = probabilities * len(drawn)
    counts = torch.bincount(drawn, minlength=len(probabilities))
    assert not counts[expected == 0].any(), "an impossible token was drawn"
    return float(((counts - expected) ** 2 / expected)[expected > 0].sum())


def test_draws_are_distributed_as_the_softmax() -> None:
    """20,000 draws of five tokens and an impossible one (chi-square, 4 degrees: 23.5 is the 1-in-10,000 value)."""
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -3.0, -math.inf])
    drawn = sample(logits.expand(20_000, -1), torch.Generator().manual_seed(0))
    assert chi_square(drawn, logits.softmax(0)) < 23.5


@pytest.mark.parametrize(
    ("settings", "probabilities"),
    [
        ({"temperature": 0.5}, torch.tensor([4.0, 2.0, 0.0, -2.0]).softmax(0)),
        ({"top_k": 2}, torch.tensor([2.0, 1.0, -math.inf, -math.inf]).softmax(0)),
        # the likeliest has 0.64 of the whole, the first two 0.88; temperature comes before the nucleus
        ({"top_p": 0.7}, torch.tensor([2.0, 1.0, -math.inf, -math.inf]).softmax(0)),
        ({"top_p": 0.7, "temperature": 0.5}, torch.tensor([1.0, 0.0, 0.0, 0.0])),
        ({"top_k": 3, "top_p": 0.95}, torch.tensor([2.0, 1.0, 0.0, -math.inf]).softmax(0)),
    ],
)
def test_settings_work_together(settings: dict[str, float], probabilities: Tensor) -> None:
    """The order is temperature, top-k, top-p, as in transformers."""
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0]).expand(10_000, -1)
    config = GenerationConfig(**settings)
    assert chi_square(next_token(logits, config, torch.Generator().manual_seed(0)), probabilities) < 23.5


def test_greedy_draws_nothing() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, 0.0, 2.0]])
    state = torch.random.get_rng_state()
    assert greedy(logits).tolist() == [1, 0]
    assert next_token(logits, GenerationConfig(greedy=True, top_k=1, temperature=9.0), None).tolist() == [1, 0]
    assert torch.equal(torch.random.get_rng_state(), state)
