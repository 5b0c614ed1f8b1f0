"""Which windows make up which batch on which rank."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from torch.utils.data import Sampler

Order = Callable[[np.ndarray], np.ndarray]
"""Positions (n,) to windows (n,); sent to loader processes."""

_AT_ONCE = 64  # batches whose windows are looked up in one call: the call's cost is mostly fixed


class TrainBatches(Sampler[np.ndarray]):
    """Endless training batches from a position on.

    Micro-batch m of rank r holds the samples at positions ``start + (m * world_size + r) * batch_size``
    and following: the ranks together walk the order without gap or overlap, however many they are.

    Args:
        order: which window stands at which position.
        start: samples consumed over all ranks before the first batch.
        batch_size: windows a batch on one rank.
        rank, world_size: of this process.
    """

    def __init__(self, order: Order, start: int, batch_size: int, rank: int, world_size: int) -> None:
        self.order = order
        self.start = start
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size

    def __iter__(self) -> Iterator[np.ndarray]:
        stride = self.world_size * self.batch_size
        positions = self.start + self.rank * self.batch_size + np.arange(self.batch_size)
        positions = positions + stride * np.arange(_AT_ONCE)[:, None]
        while True:
            yield from self.order(positions.ravel()).reshape(positions.shape)
            positions += stride * _AT_ONCE


class EvalBatches(Sampler[np.ndarray]):
    """Every window once, in order, dealt to the ranks in turn; none is padded in or left out.

    Attributes:
        is_idle: there are fewer windows than ranks, and none is left for this one. It reads the first, of which nothing
            is to count: without a batch Lightning would end the run, or this rank keep the others waiting.
    """

    def __init__(self, n_windows: int, batch_size: int, rank: int, world_size: int) -> None:
        self.is_idle = rank >= n_windows
        self.windows = np.arange(0 if self.is_idle else rank, 1 if self.is_idle else n_windows, world_size)
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.windows) // self.batch_size)

    def __iter__(self) -> Iterator[np.ndarray]:
        for start in range(0, len(self.windows), self.batch_size):
            yield self.windows[start : start + self.batch_size]
