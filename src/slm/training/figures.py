"""Figures of steps and of validations: exact sums on a device, and what they come to once they are read."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

# ---- sums ----


class ExactSum:
    """So many sums (`size`, k) on a device in twice its own precision, as two numbers each: Apple's GPUs have no
    float64. Nobody waits for the device before the numbers of `take` are read.

    What an addition rounds off is found exactly ("TwoSum", Knuth, The Art of Computer Programming 2, 4.2.2, theorem B)
    and added up beside: a sum of fp32 has 48 bits (Dekker 1971, "A floating-point technique for extending the available
    precision").
    """

    def __init__(self, size: int = 1) -> None:
        self._empty = torch.zeros(2, size)
        self._parts: tuple[Tensor, Tensor] | None = None

    def add(self, rows: Tensor) -> None:
        """Add each row of (n, k), fp32 or wider: n additions, of which log2 n one after another."""
        rows = rows.detach()
        low = torch.zeros_like(rows)
        while len(rows) > 1:
            half = len(rows) // 2
            high, rounded_off = _two_sum(rows[:half], rows[half : 2 * half])
            low = torch.cat([low[:half] + low[half : 2 * half] + rounded_off, low[2 * half :]])
            rows = torch.cat([high, rows[2 * half :]])
        high, low = rows[0], low[0]
        if self._parts is not None:
            high, rounded_off = _two_sum(self._parts[0], high)
            low = self._parts[1] + low + rounded_off
        low = torch.where(high.isfinite(), low, 0.0)  # inf stays inf
        total = high + low
        self._parts = total, low - (total - high)

    def take(self) -> Tensor:
        """Two numbers for each sum, (2, k) on the device: what `joined` takes. The sums begin anew."""
        parts, self._parts = self._parts, None
        return self._empty if parts is None else torch.stack(parts)


def joined(high: Sequence[float], low: Sequence[float]) -> tuple[float, ...]:
    """The sums that two numbers each stand for, on the host; one that is not finite has no second."""
    return tuple(a + b if math.isfinite(a) else a for a, b in zip(high, low, strict=True))


def _two_sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """``a + b`` as it is rounded, and what that left out: together exactly the sum."""
    total = a + b
    of_b = total - a
    return total, (a - (total - of_b)) + (b - of_b)


@dataclass(frozen=True)
class BatchLoss:
    """What a batch comes to."""

    total: Tensor  # the loss, summed over what it is to be the mean of: a scalar with its gradient
    count: int  # how many that are: valid tokens, or pairs
    figures: Tensor  # (n, k), rows that add up to the sums of all figures, the loss first; fp32 or wider


@dataclass(frozen=True)
class Totals:
    """What part of the data, or some steps, came to."""

    sums: tuple[float, ...]  # of the figures, the loss first
    count: int = 0  # how many these are sums over: tokens, or pairs
    text_bytes: float = 0.0  # of the text that tokens stand for; 0 where nobody knows

    def plus(self, sums: Sequence[float], count: int) -> Totals:
        return Totals(tuple(a + b for a, b in zip(self.sums, sums, strict=True)), self.count + count)

    def over(self, sum_over_ranks: Callable[..., list[float]]) -> Totals:
        """Those of all ranks; called on each."""
        *sums, count, text_bytes = sum_over_ranks(*self.sums, self.count, self.text_bytes)
        return Totals(tuple(sums), int(count), text_bytes)

    @property
    def means(self) -> list[float]:
        return [total / self.count if self.count else math.nan for total in self.sums]

    @property
    def loss(self) -> float:
        """In nats per token, or of a pair."""
        return self.means[0]

    @property
    def bytes_per_token(self) -> float:
        return self.text_bytes / self.count if self.count else math.nan


# ---- training ----


@dataclass(frozen=True)
class StepFigures:
    """What an optimizer step came to."""

    step: int  # from 1
    positions: tuple[int, int]  # first and one past the last in the order of the data, over all ranks and micro-batches
    loss_sum: float  # of this rank's share, over what it is a mean of
    count: int  # how many that are: valid tokens, or pairs
    tokens: int  # valid ones over all ranks
    grad_norm: float  # of the whole step, before clipping
    others: tuple[float, ...] = ()  # what else the module sums up beside the loss

    @property
    def is_finite(self) -> bool:
        """False for a step whose update was left out; the same on all ranks."""
        return math.isfinite(self.grad_norm)

    @property
    def loss(self) -> float:
        """Mean of this rank's share; nan if there was nothing to learn."""
        return self.loss_sum / self.count if self.count else math.nan


class StepReader:
    """Hands out the figures of steps: on a CPU at once; on a GPU those of a step while the next is under way, when
    they have long been copied to the host, so that nobody waits."""

    def __init__(self) -> None:
        self._under_way: deque[tuple[StepFigures, Tensor, torch.cuda.Event | None]] = deque()

    def put(self, known: StepFigures, sums: Tensor, grad_norm: Tensor) -> None:
        """Take in what is `known` of a step; the rest, which may still be on the device, is filled in later: `sums`
        (2, k), what `ExactSum` gave, the loss first, and `grad_norm`, a scalar."""
        values = torch.cat([sums.flatten(), grad_norm.detach().to(sums.dtype).reshape(1)])
        event = None
        if values.is_cuda:
            host = torch.empty_like(values, device="cpu", pin_memory=True)
            values = host.copy_(values, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        self._under_way.append((known, values, event))

    def take(self, wait: bool) -> list[StepFigures]:
        """The steps that have not been taken yet, in order; with `wait` the last one too, also where that waits for the
        device."""
        taken = []
        while self._under_way and (wait or len(self._under_way) > 1 or self._under_way[0][2] is None):
            known, values, event = self._under_way.popleft()
            if event is not None:
                event.synchronize()
            *parts, grad_norm = values.tolist()
            size = len(parts) // 2
            loss_sum, *others = joined(parts[:size], parts[size:])
            taken.append(replace(known, loss_sum=loss_sum, grad_norm=grad_norm, others=tuple(others)))
        return taken


# ---- validation ----


class Scored:
    """What a part of the data comes to, batch by batch, on this rank; `size` figures, which may be on their way."""

    def __init__(self, size: int) -> None:
        self._sums = ExactSum(size)
        self._count, self._text_bytes = 0, 0.0

    def add(self, loss: BatchLoss, text_bytes: float) -> None:
        self._sums.add(loss.figures)
        self._count += loss.count
        self._text_bytes += text_bytes

    def totals(self) -> Totals:
        return Totals(joined(*self._sums.take().tolist()), self._count, self._text_bytes)


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
