"""Pairs of answers to batches; labels are shifted here, as windows shift theirs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from slm.data.batches.pair_tokens import AnswerTokens, PairTokens
from slm.data.batches.windows import IGNORE_INDEX

_LENGTH_MULTIPLE = 8


class PairDataset(Dataset[dict[str, Tensor]]):
    """Batches of pairs, the chosen answers first.

    A batch of B pairs has ``input_ids`` and ``labels``, (2 B, T) int64: rows ``0 .. B - 1`` are the chosen answers,
    each after its prompt, rows ``B .. 2 B - 1`` the rejected ones, in the same order. Labels are -100 but for the
    answer's tokens. T is the batch's longest, rounded up to a multiple of 8 where `seq_len` has room for that.

    Args:
        pairs: at least one; none longer than ``seq_len + 1`` tokens.
        seq_len: the most positions of a row.
        reference: (n, 2) fp32, log-probabilities of the answers by the reference, chosen and rejected; batches then
            have them as ``reference``, (2 B,).
    """

    def __init__(self, pairs: Sequence[PairTokens], seq_len: int, reference: Tensor | None = None) -> None:
        self.pairs = pairs
        self.seq_len = seq_len
        self.reference = reference

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> dict[str, Tensor]:
        """The batch of these pairs."""
        pairs = [self.pairs[int(index)] for index in indices]
        answers = [*(pair.chosen for pair in pairs), *(pair.rejected for pair in pairs)]
        length = max(len(answer.ids) for answer in answers) - 1
        batch = _padded(answers, min(self.seq_len, -(-length // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE))
        if self.reference is not None:
            batch["reference"] = self.reference[torch.as_tensor(np.asarray(indices))].t().flatten()
        return batch

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """A batch of one pair."""
        return self.__getitems__([index])


def _padded(answers: Sequence[AnswerTokens], length: int) -> dict[str, Tensor]:
    """Nothing sees what comes after it, so what stands in the padding is of no matter; its labels are -100."""
    ids = np.zeros((len(answers), length), dtype=np.int64)
    labels = np.full((len(answers), length), IGNORE_INDEX, dtype=np.int64)
    for row, answer in enumerate(answers):
        ids[row, : len(answer.ids) - 1] = answer.ids[:-1]
        labels[row, answer.start - 1 : answer.end - 1] = answer.ids[answer.start : answer.end]
    return {"input_ids": torch.from_numpy(ids), "labels": torch.from_numpy(labels)}
