"""Loss and gradient norm of each optimizer step, read without holding up a GPU."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from slm.training.exact_sum import joined


@dataclass(frozen=True)
class StepFigures:
    """What an optimizer step came to.

    Attributes:
        step: the optimizer step, from 1.
        positions: first and one past the last position in the order of the data, over all ranks and micro-batches.
        loss_sum: the loss of this rank's share, summed over what it is a mean of.
        count: how many that are: valid tokens, or pairs.
        tokens: valid tokens over all ranks.
        grad_norm: of the whole step, before clipping.
        others: what else the module sums up beside the loss.
    """

    step: int
    positions: tuple[int, int]
    loss_sum: float
    count: int
    tokens: int
    grad_norm: float
    others: tuple[float, ...] = ()

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
        """Take in a step.

        Args:
            known: what is known of it; the rest, which may still be on the device, is filled in later.
            sums: (2, k), what `ExactSum` gave, the loss first.
            grad_norm: a scalar on the same device.
        """
        values = torch.cat([sums.flatten(), grad_norm.detach().to(sums.dtype).reshape(1)])
        event = None
        if values.is_cuda:
            host = torch.empty_like(values, device="cpu", pin_memory=True)
            values = host.copy_(values, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        self._under_way.append((known, values, event))

    def take(self, wait: bool) -> list[StepFigures]:
        """The steps that have not been taken yet, in order.

        Args:
            wait: take the last one too, also where that waits for the device.
        """
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
