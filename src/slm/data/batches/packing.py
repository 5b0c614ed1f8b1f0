"""Which samples share a window: as few windows as a simple rule finds, always the same for a seed."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict

import numpy as np


def pack(lengths: np.ndarray, room: int, seed: int) -> list[list[int]]:
    """Best-fit decreasing: the longest sample first, each into the fullest window that still takes it (at most 11/9 of
    the fewest windows there can be, and 4: Johnson et al. 1974).

    Args:
        lengths: (k,) positions that each sample takes, at most `room`.
        room: positions of a window.
        seed: decides among samples of the same length, so that those that were written one after another part.

    Returns:
        Sample indices, a list a window.
    """
    shuffled = np.random.default_rng(seed).permutation(len(lengths))
    order = shuffled[np.argsort(-lengths[shuffled], kind="stable")]
    windows: list[list[int]] = []
    with_left: defaultdict[int, list[int]] = defaultdict(list)  # positions left -> windows
    left_sorted: list[int] = []
    for sample in order.tolist():
        length = int(lengths[sample])
        place = bisect_left(left_sorted, length)
        if place == len(left_sorted):
            window, left = len(windows), room
            windows.append([])
        else:
            left = left_sorted[place]
            window = with_left[left].pop()
            if not with_left[left]:
                left_sorted.pop(place)
        windows[window].append(sample)
        left -= length
        if left and not with_left[left]:
            insort(left_sorted, left)
        if left:
            with_left[left].append(window)
    return windows
