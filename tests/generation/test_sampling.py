"""Sampling as distributions, against the definitions in plain Python."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from slm.generation.config import GenerationConfig
from slm.generation.sampling import (
    adjusted,
    forbid_ngrams,
    keep_min_p,
    keep_top_p,
    log_probabilities,
    next_tokens,
    penalize_counts,
    penalize_repetition,
    sample,
    with_bias,
)

rows = st.lists(st.integers(-40, 40), min_size=1, max_size=12, unique=True)


def kept(logits: Tensor) -> set[int]:
    return {i for i, value in enumerate(logits.flatten().tolist()) if value > -math.inf}


@given(row=rows, k=st.integers(1, 15))
def test_top_k_keeps_the_k_largest_as_they_are(row: list[int], k: int) -> None:
    """Each of them is drawn as often as its share, the others never."""
    n, largest = 1000, sorted(range(len(row)), key=lambda i: -row[i])[:k]
    logits = torch.tensor([row], dtype=torch.float32) / 40
    drawn = drawn_by(logits, n, GenerationConfig(top_k=k, temperature=1.0))
    shares = logits[0, largest].softmax(dim=-1)
    assert set(drawn) == set(largest)
    assert all(abs(drawn.count(token) - n * share) < 1.1 for token, share in zip(largest, shares.tolist(), strict=True))


def test_top_k_keeps_k_of_equals() -> None:
    """A threshold instead of a count would keep all six."""
    assert len(set(drawn_by(torch.zeros(1, 6), 100, GenerationConfig(top_k=2)))) == 2


def drawn_by(logits: Tensor, n: int, settings: GenerationConfig) -> list[int]:
    """Tokens of `n` numbers spread evenly over [0, 1)."""
    drawn: list[int] = next_tokens(logits.expand(n, -1), settings, (torch.arange(n) + 0.5) / n).tolist()
    return drawn


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


def uniforms(n: int) -> Tensor:
    return torch.rand(n, generator=torch.Generator().manual_seed(0))


def test_draws_are_distributed_as_the_softmax() -> None:
    """20,000 draws of five tokens and an impossible one (chi-square, 4 degrees: 23.5 is the 1-in-10,000 value)."""
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -3.0, -math.inf])
    drawn = sample(logits.expand(20_000, -1), uniforms(20_000))
    assert chi_square(drawn, logits.softmax(0)) < 23.5


@given(row=rows, p=st.floats(0.01, 0.99))
def test_min_p_keeps_what_is_likely_enough_beside_the_likeliest(row: list[int], p: float) -> None:
    logits = torch.tensor([row], dtype=torch.float32) / 4
    share = [math.exp((value - max(row)) / 4) for value in row]
    surely = {i for i, s in enumerate(share) if s > p * 1.001}
    perhaps = {i for i, s in enumerate(share) if s > p * 0.999}
    assert surely <= kept(keep_min_p(logits, p)) <= perhaps


def test_a_wide_nucleus_in_a_large_vocabulary_is_sorted_whole() -> None:
    """The short cut through the 1,024 likeliest must not cut a nucleus that is wider."""
    flat = torch.zeros(1, 5000)
    assert len(kept(keep_top_p(flat, 0.5))) in (2500, 2501)
    peaked = torch.cat([torch.full((1, 10), 20.0), torch.zeros(1, 4990)], dim=1)
    assert kept(keep_top_p(peaked, 0.95)) == set(range(10))


def test_a_draw_depends_on_its_own_row_alone() -> None:
    logits, numbers = torch.randn(6, 50, generator=torch.Generator().manual_seed(1)), uniforms(6)
    config = GenerationConfig(top_k=20, top_p=0.9, min_p=0.01)
    together = next_tokens(logits, config, numbers)
    assert together.tolist() == [int(next_tokens(logits[i : i + 1], config, numbers[i : i + 1])) for i in range(6)]
    edge = sample(torch.tensor([[0.0, -math.inf, 0.0, -math.inf]]).expand(3, -1), torch.tensor([0.0, 0.5, 0.99999994]))
    assert edge.tolist() == [0, 2, 2], "the ends of the interval draw possible tokens too"


def test_penalties_by_hand() -> None:
    """Keskar et al. 2019 for the first, OpenAI's formula for the others; prompts count for the first alone."""
    logits = torch.tensor([[2.0, -2.0, 1.0, 0.5]])
    assert penalize_repetition(logits, [[0, 1, 0]], 2.0).tolist() == [[1.0, -4.0, 1.0, 0.5]]
    assert penalize_counts(logits, [[0, 2, 2]], 0.25, 0.5).tolist() == [[1.25, -2.0, -0.25, 0.5]]
    assert penalize_counts(logits, [[]], 0.25, 0.5).tolist() == logits.tolist()
    assert with_bias(logits, {3: 1.5, 99: 7.0}).tolist() == [[2.0, -2.0, 1.0, 2.0]]
    settings = GenerationConfig(repetition_penalty=2.0, presence_penalty=1.0)
    assert adjusted(logits, settings, [[0]], [[2]]).tolist() == [[1.0, -2.0, -0.5, 0.5]]


def test_no_ngram_comes_twice() -> None:
    logits = torch.zeros(1, 5)
    assert kept(forbid_ngrams(logits, [[1, 2, 3, 1, 2]], 3)) == {0, 1, 2, 4}
    assert kept(forbid_ngrams(logits, [[1, 2, 3]], 1)) == {0, 4}
    assert kept(forbid_ngrams(logits, [[1]], 3)) == {0, 1, 2, 3, 4}


def test_log_probabilities_are_of_the_model_itself() -> None:
    logits = torch.randn(3, 7, generator=torch.Generator().manual_seed(1))
    tokens = torch.tensor([1, 0, 6])
    assert torch.allclose(log_probabilities(logits, tokens), logits.softmax(-1)[range(3), tokens].log())


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
    config = GenerationConfig(**{"temperature": 1.0, **settings})
    assert chi_square(next_tokens(logits, config, uniforms(10_000)), probabilities) < 23.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("settings", "drawn"),
    [
        # row 0 has its largest, 4, at token 2, row 1 its largest at 0; drawn at 0.3 and 0.7 of the whole
        ({"temperature": 1e-40}, [2, 0]),
        ({"temperature": 5e-324}, [2, 0]),
        ({"temperature": 2e-38}, [2, 0]),
        ({"temperature": 1e-6, "top_k": 2}, [2, 0]),
        ({"temperature": 1e39}, [1, 2]),  # all alike: the second and the third of four
        ({"temperature": 1e308, "logit_bias": {1: -math.inf}}, [0, 3]),
        ({"top_p": 1e-50}, [2, 0]),
        ({"top_p": 5e-324, "top_k": 3}, [2, 0]),
        ({"min_p": 1.0}, [2, 0]),
        ({"temperature": 0.01, "min_p": 5e-324}, [2, 0]),
        ({"logit_bias": {3: 1e308}}, [3, 3]),
        ({"logit_bias": {3: 3.4e38, 1: 1e308}, "temperature": 1e-30}, [1, 1]),
        ({"logit_bias": {2: -1e308, 0: -1e308}, "temperature": 0.01}, [1, 3]),
        ({"repetition_penalty": 1e-308, "temperature": 0.01}, [2, 0]),
        ({"repetition_penalty": 1e308, "temperature": 0.01}, [1, 3]),
    ],
    ids=str,
)
def test_extreme_settings_leave_a_distribution(settings: dict[str, Any], drawn: list[int], dtype: torch.dtype) -> None:
    """A temperature of 1e-40 made inf - inf of every row, so that the last token of the vocabulary came."""
    logits = torch.tensor([[-2.0, 0.0, 4.0, -3.0], [5.0, -1.0, 2.0, 1.0]], dtype=dtype)
    config = GenerationConfig(**settings)
    changed = adjusted(logits, config, [[2, 0], [0, 2]], [[2], [0]])
    assert next_tokens(changed, config, torch.tensor([0.3, 0.7])).tolist() == drawn


@pytest.mark.parametrize("settings", [{}, {"top_k": 2}, {"logit_bias": {0: 5.0}}, {"presence_penalty": 1.0}], ids=str)
def test_logits_beyond_their_type_are_the_likeliest(settings: dict[str, Any]) -> None:
    """fp16 ends at 65,504: what a model gives beyond is inf, and inf - inf was the whole row."""
    rows = [[1.0, math.inf, 0.0], [3e38, -3e38, 1.0], [-math.inf, -3e38, -3.4e38]]
    logits, config = torch.tensor(rows), GenerationConfig(logprobs=True, **settings)
    changed = adjusted(logits, config, [[1], [0], [1]], [[1], [0], [1]])
    drawn = next_tokens(changed, config, torch.tensor([0.9, 0.9, 0.9]))
    assert drawn.tolist() == [1, 0, 1]
    assert log_probabilities(logits, drawn).tolist() == [0.0, 0.0, 0.0]


def test_greedy_draws_nothing() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, 0.0, 2.0]])
    state = torch.random.get_rng_state()
    assert next_tokens(logits, GenerationConfig(greedy=True), None).tolist() == [1, 0]
    assert next_tokens(logits, GenerationConfig(greedy=True, top_k=1, temperature=9.0), None).tolist() == [1, 0]
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_row_with_every_token_forbidden_stays_as_it_is() -> None:
    """All -inf is no distribution: the last token of the vocabulary came, whatever it was."""
    logits = torch.tensor([[3.0, 1.0], [1.0, 3.0]])
    left = adjusted(logits, GenerationConfig(no_repeat_ngram=1), [[0, 1], [1]], [[], []])
    assert left.tolist() == [[3.0, 1.0], [1.0, -math.inf]]
    for bias in (math.inf, math.nan):
        with pytest.raises(ValueError, match="logit_bias of token 1"):
            GenerationConfig(logit_bias={1: bias})


def test_penalties_of_bf16_logits_are_not_rounded_away() -> None:
    """At 10, bf16 has steps of 0.06: a penalty of 0.02 did nothing."""
    logits = torch.tensor([[10.0, 10.0]], dtype=torch.bfloat16)
    settings = GenerationConfig(greedy=True, presence_penalty=0.02)
    assert int(next_tokens(adjusted(logits, settings, [[]], [[0]]), settings, None)) == 1
