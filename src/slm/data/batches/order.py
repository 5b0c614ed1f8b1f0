"""Which window comes at which position: a function of (seed, position) and nothing else."""

from __future__ import annotations

import numpy as np

_ROUNDS = 6


def window_at(positions: np.ndarray, n_windows: int, seed: int) -> np.ndarray:
    """Window indices at `positions` in the endless seeded order of training samples.

    Positions ``e * n_windows .. (e + 1) * n_windows - 1`` are epoch `e`: they hold every window
    exactly once, in an order of their own. Nothing is stored, so any position is as cheap to
    reach as the first.

    Args:
        positions: (n,) non-negative int64, samples consumed since the start of training.
        n_windows: windows in the training split.
        seed: of the run.

    Returns:
        (n,) int64 in ``0 .. n_windows - 1``.
    """
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
