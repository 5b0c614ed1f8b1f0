"""Samples to batches; labels are shifted here, as `slm.data.batches.windows` shifts those of running text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from slm.data.batches.packing import pack
from slm.data.batches.samples import SampleSet
from slm.data.batches.windows import IGNORE_INDEX

_LENGTH_MULTIPLE = 8


class PackedSamples(Dataset[dict[str, Tensor]]):
    """Windows of `seq_len` positions that hold several samples one after another.

    A batch has ``input_ids``, ``labels`` and ``positions``, (B, T) int64 each. Positions begin at 0 with each sample,
    by which a model knows where one begins; behind the last each is 0 and has the label -100.

    Args:
        samples: none longer than a window.
        seq_len: window length T.
        seed: of the packing.
    """

    def __init__(self, samples: SampleSet, seq_len: int, seed: int) -> None:
        self.samples = samples
        self.seq_len = seq_len
        self.windows = pack(samples.lengths, seq_len, seed)

    def __len__(self) -> int:
        return len(self.windows)

    @property
    def filled(self) -> float:
        """Share of all positions that hold a token."""
        return float(self.samples.lengths.sum()) / max(1, len(self) * self.seq_len)

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> dict[str, Tensor]:
        """The batch of these windows."""
        shape = (len(indices), self.seq_len)
        ids, positions = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        labels = np.full(shape, IGNORE_INDEX, dtype=np.int64)
        for row, window in enumerate(indices):
            end = 0
            for sample in self.windows[int(window)]:
                start, end = end, end + _place(self.samples, sample, ids[row, end:], labels[row, end:])
                positions[row, start:end] = np.arange(end - start)
        batch = {"input_ids": ids, "labels": labels, "positions": positions}
        return {name: torch.from_numpy(array) for name, array in batch.items()}

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One window, (T,) each."""
        return {name: tensor[0] for name, tensor in self.__getitems__([index]).items()}

    def text_bytes(self, indices: Sequence[int] | np.ndarray) -> float:
        """Bytes of text that the labels of these windows stand for, together."""
        return float(sum(self.samples.text_bytes(sample) for i in indices for sample in self.windows[int(i)]))


class PaddedSamples(Dataset[dict[str, Tensor]]):
    """A sample a row, padded at its end, where nothing sees it, to the batch's longest (rounded up to 8).

    A batch has ``input_ids`` and ``labels``, (B, T) int64 each.
    """

    def __init__(self, samples: SampleSet, seq_len: int) -> None:
        self.samples = samples
        self.seq_len = seq_len

    def __len__(self) -> int:
        return len(self.samples)

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> dict[str, Tensor]:
        """The batch of these samples."""
        longest = int(self.samples.lengths[np.asarray(indices)].max())
        length = min(self.seq_len, -(-longest // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE)
        ids = np.zeros((len(indices), length), dtype=np.int64)
        labels = np.full_like(ids, IGNORE_INDEX)
        for row, sample in enumerate(indices):
            _place(self.samples, int(sample), ids[row], labels[row])
        return {"input_ids": torch.from_numpy(ids), "labels": torch.from_numpy(labels)}

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One sample, (T,) each."""
        return {name: tensor[0] for name, tensor in self.__getitems__([index]).items()}

    def text_bytes(self, indices: Sequence[int] | np.ndarray) -> float:
        """Bytes of text that the labels of these samples stand for, together."""
        return float(sum(self.samples.text_bytes(int(sample)) for sample in indices))


def _place(samples: SampleSet, sample: int, ids: np.ndarray, labels: np.ndarray) -> int:
    """Write a sample at the start of `ids` and `labels`; how many positions it takes."""
    start, end = samples.offsets[sample], samples.offsets[sample + 1]
    n = int(end - start) - 1
    ids[:n] = samples.ids[start : end - 1]
    labels[:n] = np.where(samples.learnt[start + 1 : end], samples.ids[start + 1 : end], IGNORE_INDEX)
    return n
