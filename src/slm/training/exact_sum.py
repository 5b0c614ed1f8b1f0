"""Sums on a device in twice its own precision, as two numbers each: Apple's GPUs have no float64."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


class ExactSum:
    """Sums of numbers that lie on a device; nobody waits for that before the numbers of `take` are read.

    What an addition rounds off is found exactly ("TwoSum", Knuth, The Art of Computer Programming 2, 4.2.2, theorem B)
    and added up beside: a sum of fp32 has 48 bits (Dekker 1971, "A floating-point technique for extending the available
    precision").

    Args:
        size: how many sums, k.
    """

    def __init__(self, size: int = 1) -> None:
        self._empty = torch.zeros(2, size)
        self._parts: tuple[Tensor, Tensor] | None = None

    def add(self, values: Tensor) -> None:
        """Add `values`, k of them, fp32 or wider."""
        self.add_rows(values.reshape(1, -1))

    def add_rows(self, rows: Tensor) -> None:
        """Add each row of (n, k): n additions, of which log2 n one after another."""
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


def joined(high: Sequence[float], low: Sequence[float]) -> list[float]:
    """The sums that two numbers each stand for, on the host; one that is not finite has no second."""
    return [a + b if math.isfinite(a) else a for a, b in zip(high, low, strict=True)]


def _two_sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """``a + b`` as it is rounded, and what that left out: together exactly the sum."""
    total = a + b
    of_b = total - a
    return total, (a - (total - of_b)) + (b - of_b)
