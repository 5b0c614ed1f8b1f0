"""Logits to a next token: pure functions, each for logits (B, V)."""

from __future__ import annotations

import torch
from torch import Tensor

from slm.generation.config import GenerationConfig


def next_token(logits: Tensor, settings: GenerationConfig, generator: torch.Generator | None) -> Tensor:
    """(B, V) logits to (B,) token ids, by `settings`; `generator` draws, None for the global one."""
    if settings.greedy:
        return greedy(logits)
    logits = logits.float() / settings.temperature
    if settings.top_k:
        logits = keep_top_k(logits, settings.top_k)
    if settings.top_p < 1:
        logits = keep_top_p(logits, settings.top_p)
    return sample(logits, generator)


def greedy(logits: Tensor) -> Tensor:
    """The likeliest token; of equals, the one with the lowest id."""
    return logits.argmax(dim=-1)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """All but the `k` largest logits of each row set to -inf (Fan et al. 2018)."""
    if k >= logits.shape[-1]:
        return logits
    kept, where = logits.topk(k, dim=-1)
    return torch.full_like(logits, float("-inf")).scatter(-1, where, kept)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """All but the nucleus set to -inf: the fewest likeliest tokens whose probabilities sum to at
    least `p`, never fewer than one (Holtzman et al. 2020, eq. 2)."""
    ordered, where = logits.sort(dim=-1, descending=True, stable=True)
    probabilities = ordered.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities
    return torch.full_like(logits, float("-inf")).scatter(-1, where, ordered.masked_fill(before >= p, float("-inf")))


def sample(logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """One draw a row from softmax(logits).

    Draws by racing exponentials, argmax(p / E) with E ~ Exp(1): the same distribution as
    `torch.multinomial`, without its synchronisation.
    """
    probabilities = logits.softmax(dim=-1)
    race = torch.empty_like(probabilities).exponential_(generator=generator)
    return (probabilities / race).argmax(dim=-1)
