"""What validation finds of a text: loss, perplexity and bits per byte, from exact sums."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from slm.training.exact_sum import ExactSum, joined


@dataclass
class Scored:
    """What one part of the data came to: so far and on this rank, or in all.

    Attributes:
        nll: sum over the labels, in nats.
        tokens: labels.
        text_bytes: of the text that these labels stand for; 0 where nobody knows.
    """

    nll: float = 0.0
    tokens: int = 0
    text_bytes: float = 0.0
    _sum: ExactSum = field(default_factory=ExactSum)

    def add(self, nll: Tensor, tokens: int, text_bytes: float) -> None:
        """Add a batch, whose `nll` may still be on its way."""
        self._sum.add(nll)
        self.tokens += tokens
        self.text_bytes += text_bytes

    def over(self, sum_over_ranks: Callable[[Any], Any]) -> Scored:
        """That of all ranks; called on each."""
        (nll,) = joined(*self._sum.take().tolist())
        return Scored(*map(sum_over_ranks, (nll, self.tokens, self.text_bytes)))

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nll / self.tokens if self.tokens else math.nan

    @property
    def bytes_per_token(self) -> float:
        """Of the text itself."""
        return self.text_bytes / self.tokens if self.tokens else math.nan


def text_figures(parts: Mapping[str, Scored], shares: Mapping[str, float]) -> dict[str, float]:
    """Figures of text that is mixed as `shares` say: each part has its share of the tokens. Of several parts also
    ``loss/<name>`` of each."""
    loss = sum(share * parts[name].loss for name, share in shares.items())
    figures = text_metrics(loss, sum(share * parts[name].bytes_per_token for name, share in shares.items()))
    if len(parts) > 1:
        figures.update({f"loss/{name}": part.loss for name, part in parts.items()})
    return figures


def text_metrics(loss: float, bytes_per_token: float) -> dict[str, float]:
    """What a mean loss in nats per token means.

    Returns:
        ``loss``; ``perplexity`` = exp(loss); ``bits_per_byte`` = loss / ln 2 / bytes per token, which compares models
        of different tokenizers: nan for 0 bytes.
    """
    return {
        "loss": loss,
        "perplexity": math.exp(min(loss, 700.0)),
        "bits_per_byte": loss / math.log(2) / bytes_per_token if bytes_per_token else math.nan,
    }
