"""Samples to windows, and these to batches; labels are shifted here, as `windows.py` shifts those of running text."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from slm.data.batches.samples import SampleSet
from slm.data.batches.windows import IGNORE_INDEX, Indices, Windows

_LENGTH_MULTIPLE = 8


class SampleWindows(Windows):
    """Windows of whole samples, none of them longer than one; `windows` names the samples of each."""

    def __init__(
        self, samples: SampleSet, seq_len: int, windows: Sequence[Sequence[int]] | np.ndarray, counted: bool
    ) -> None:
        self.samples = samples
        self.seq_len = seq_len
        self.windows = windows
        self.counted = counted

    def __len__(self) -> int:
        return len(self.windows)

    @property
    def filled(self) -> float:
        """Share of all positions that hold a token."""
        return float(self.samples.lengths.sum()) / max(1, len(self) * self.seq_len)

    def text_bytes(self, indices: Indices) -> float:
        return float(sum(self.samples.text_bytes(sample) for i in indices for sample in self.windows[i]))

    def _laid_out(self, indices: Indices, length: int) -> dict[str, Tensor]:
        """The samples of each window one after another, in rows of `length`."""
        shape = (len(indices), length)
        ids, labels, positions = (np.full(shape, empty, dtype=np.int64) for empty in (0, IGNORE_INDEX, 0))
        for row, window in enumerate(indices):
            end = 0
            for sample in self.windows[window]:
                tokens, learnt, _ = self.samples[sample]
                start, end = end, end + len(tokens) - 1
                ids[row, start:end] = tokens[:-1]
                labels[row, start:end] = np.where(learnt[1:], tokens[1:], IGNORE_INDEX)
                positions[row, start:end] = np.arange(end - start)
        batch = {"input_ids": ids, "labels": labels, "positions": positions}
        return {name: torch.from_numpy(array) for name, array in batch.items()}


class PackedSamples(SampleWindows):
    """Several samples share a window.

    A batch has ``input_ids``, ``labels`` and ``positions``, (B, T) int64 each. Positions begin at 0 with each sample,
    by which a model knows where one begins; behind the last each is 0 and has the label -100. `seed` is of the packing.
    """

    def __init__(self, samples: SampleSet, seq_len: int, seed: int, counted: bool = False) -> None:
        super().__init__(samples, seq_len, pack(samples.lengths, seq_len, seed), counted)

    def batch(self, indices: Indices) -> dict[str, Tensor]:
        return self._laid_out(indices, self.seq_len)


class PaddedSamples(SampleWindows):
    """A sample a row, padded at its end, where nothing sees it, to the batch's longest, rounded up to 8 where `seq_len`
    has room for that.

    A batch has ``input_ids`` and ``labels``, (B, T) int64 each.
    """

    def __init__(self, samples: SampleSet, seq_len: int, counted: bool = False) -> None:
        super().__init__(samples, seq_len, np.arange(len(samples))[:, None], counted)

    def batch(self, indices: Indices) -> dict[str, Tensor]:
        longest = int(self.samples.lengths[np.asarray(indices)].max())
        batch = self._laid_out(indices, min(self.seq_len, -(-longest // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE))
        del batch["positions"]
        return batch


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
