"""Which window comes at which position, a function of (seed, position) alone, and in which batch of which rank."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

Order = Callable[[np.ndarray], np.ndarray]  # positions (n,) to windows (n,); sent to loader processes
BLOCK = 1000
"""Positions after which each part of a mixture has had its share exactly; shares are rounded to one in so many."""

_ROUNDS = 6
_AT_ONCE = 64  # batches whose windows are looked up in one call: the call's cost is mostly fixed


def window_at(positions: np.ndarray, n_windows: int, seed: int) -> np.ndarray:
    """Window indices at `positions`, (n,) int64 from 0 on each, in the endless seeded order of training samples.
    Positions ``e * n_windows .. (e + 1) * n_windows - 1`` are epoch `e`: they hold every window exactly once, in an
    order of their own. Nothing is stored, so any position is as cheap to reach as the first."""
    epoch, index = np.divmod(positions.astype(np.uint64), np.uint64(n_windows))
    keys = _mix(_mix(np.uint64(seed & (2**64 - 1))) + epoch)
    half_bits = np.uint64(max(1, ((n_windows - 1).bit_length() + 1) // 2))
    # A Feistel network permutes 0 .. 4^half_bits - 1; walking its cycle until the value is below
    # n_windows restricts it to a permutation of those (Black and Rogaway 2002, "cycle walking").
    index = _feistel(index, keys, half_bits)
    outside = index >= n_windows
    while outside.any():
        index[outside] = _feistel(index[outside], keys[outside], half_bits)
        outside = index >= n_windows
    return index.astype(np.int64)


def _feistel(index: np.ndarray, keys: np.ndarray, half_bits: np.uint64) -> np.ndarray:
    mask = (np.uint64(1) << half_bits) - np.uint64(1)
    left, right = index >> half_bits, index & mask
    for round_number in range(_ROUNDS):
        left, right = right, left ^ (_mix(right + keys + np.uint64(round_number << 32)) & mask)
    return (left << half_bits) | right


def _mix(x: np.ndarray | np.uint64) -> np.ndarray:
    """splitmix64's finaliser (Steele et al. 2014): every input bit moves every output bit."""
    with np.errstate(over="ignore"):
        x = np.asarray(x, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def slots(weights: Sequence[float]) -> np.ndarray:
    """Of `BLOCK` positions, how many belong to each part: (n_parts,) int64, as near to `weights` as whole numbers can
    be (largest remainders). One that is far too light has none."""
    exact = np.asarray(weights, dtype=np.float64) / sum(weights) * BLOCK
    given = np.floor(exact).astype(np.int64)
    by_remainder = np.argsort(given - exact, kind="stable")
    given[by_remainder[: BLOCK - int(given.sum())]] += 1
    return given


@dataclass(frozen=True)
class MixtureOrder:
    """The endless order of a mixture's training samples. Every block of `BLOCK` positions holds each part as often as
    its share says, in a seeded order of its own. At the positions of a part, one after another, stands that part's own
    endless order: each of its windows once an epoch, of its own epochs."""

    n_windows: Sequence[int]  # of each part
    weights: Sequence[float]  # of each part; each is to have a slot
    seed: int

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
        given = slots(self.weights)
        blocks, place = np.divmod(positions, BLOCK)
        blocks, row = np.unique(blocks, return_inverse=True)
        slot = window_at((blocks[:, None] * BLOCK + np.arange(BLOCK)).ravel(), BLOCK, self.seed)
        part = np.searchsorted(np.cumsum(given), slot, side="right").reshape(-1, BLOCK)
        before = np.empty_like(part)
        for i in range(len(given)):
            mine = part == i
            before[mine] = (np.cumsum(mine, axis=1) - 1)[mine]
        sample = blocks[:, None] * given[part] + before
        return part[row, place], sample[row, place]


@dataclass(frozen=True, eq=False)
class TrainBatches(Sampler[np.ndarray]):
    """Endless training batches from a position on. Micro-batch m of rank r holds the samples at positions ``start + (m
    * world_size + r) * batch_size`` and following: any number of ranks walk the order without gap or overlap."""

    order: Order
    start: int  # samples consumed over all ranks before the first batch
    batch_size: int  # windows a batch on one rank
    rank: int
    world_size: int

    def __iter__(self) -> Iterator[np.ndarray]:
        stride = self.world_size * self.batch_size
        positions = self.start + self.rank * self.batch_size + np.arange(self.batch_size)
        positions = positions + stride * np.arange(_AT_ONCE)[:, None]
        while True:
            yield from self.order(positions.ravel()).reshape(positions.shape)
            positions += stride * _AT_ONCE


class EvalBatches(Sampler[np.ndarray]):
    """Every window once, in order, dealt to the ranks in turn; none is padded in or left out. A rank `is_idle` for
    which no window is left. It reads the first, of which nothing is to count: without a batch Lightning would end the
    run, or this rank keep the others waiting."""

    def __init__(self, n_windows: int, batch_size: int, rank: int, world_size: int) -> None:
        self.is_idle = rank >= n_windows
        self.windows = np.arange(0 if self.is_idle else rank, 1 if self.is_idle else n_windows, world_size)
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.windows) // self.batch_size)

    def __iter__(self) -> Iterator[np.ndarray]:
        for start in range(0, len(self.windows), self.batch_size):
            yield self.windows[start : start + self.batch_size]
