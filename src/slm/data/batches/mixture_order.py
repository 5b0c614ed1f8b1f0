"""Which part of a mixture, and which window of it, stands at which position: a function of (seed, position) alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from slm.data.batches.order import window_at

BLOCK = 1000
"""Positions after which each part has had its share exactly; shares are rounded to one in so many."""


def slots(weights: Sequence[float]) -> np.ndarray:
    """Of `BLOCK` positions, how many belong to each part: (n_parts,) int64, as near to `weights` as whole numbers
    can be (largest remainders). One that is far too light has none.
    """
    exact = np.asarray(weights, dtype=np.float64) / sum(weights) * BLOCK
    given = np.floor(exact).astype(np.int64)
    by_remainder = np.argsort(given - exact, kind="stable")
    given[by_remainder[: BLOCK - int(given.sum())]] += 1
    return given


class MixtureOrder:
    """The endless order of a mixture's training samples.

    Every block of `BLOCK` positions holds each part as often as its share says, in a seeded order of its own. What
    stands at the positions of a part, one after another, is that part's own endless order: each of its windows once
    an epoch, however often its epochs begin anew beside the others'.

    Args:
        n_windows: of each part.
        weights: of each part; each is to have a slot.
        seed: of the run.
    """

    def __init__(self, n_windows: Sequence[int], weights: Sequence[float], seed: int) -> None:
        self.n_windows = n_windows
        self.slots = slots(weights)
        self.seed = seed

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """Windows at `positions` (n,), counted through all parts, one part after another: (n,) int64."""
        part, sample = self.samples(positions)
        windows = np.empty_like(sample)
        first = 0
        for i, n_windows in enumerate(self.n_windows):
            mine = part == i
            windows[mine] = first + window_at(sample[mine], n_windows, self.seed + ((i + 1) << 32))
            first += n_windows
        return windows

    def samples(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The part at each position, and how many samples of that part come before it: two (n,) int64."""
        blocks, place = np.divmod(positions, BLOCK)
        blocks, row = np.unique(blocks, return_inverse=True)
        slot = window_at((blocks[:, None] * BLOCK + np.arange(BLOCK)).ravel(), BLOCK, self.seed)
        part = np.searchsorted(np.cumsum(self.slots), slot, side="right").reshape(-1, BLOCK)
        before = np.empty_like(part)
        for i in range(len(self.slots)):
            mine = part == i
            before[mine] = (np.cumsum(mine, axis=1) - 1)[mine]
        sample = blocks[:, None] * self.slots[part] + before
        return part[row, place], sample[row, place]
