"""Tokens to training examples: the one place that shifts labels."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from slm.data.batches.words import WordStarts, words_of_windows
from slm.data.store.token_store import ShardedTokens, TokenBytes
from slm.errors import UserError

IGNORE_INDEX = -100
TEXT_BYTES = "text_bytes"
Indices = Sequence[int] | np.ndarray


class Windows(Dataset[dict[str, Any]], ABC):
    """What batches are made of: windows of at most `seq_len` positions, T. Batches of `counted` ones say how many bytes
    of text their labels stand for: ``text_bytes``, a number."""

    seq_len: int
    counted: bool = False

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def batch(self, indices: Indices) -> dict[str, Tensor]:
        """The batch of these windows: ``input_ids`` and ``labels``, (B, T) int64 each, and perhaps more."""

    def text_bytes(self, indices: Indices) -> float:
        """Bytes of text that the labels of these windows stand for, together; known of some."""
        raise NotImplementedError

    def words(self, starts: WordStarts) -> np.ndarray:
        """How many words begin in each window: (n,) int64; known of some."""
        raise UserError("words are counted of running text and of conversations alone; give trainer.save_at in steps")

    def __getitems__(self, indices: Indices) -> dict[str, Any]:
        counts = {TEXT_BYTES: self.text_bytes(indices)} if self.counted else {}
        return {**self.batch(indices), **counts}

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: tensor[0] for name, tensor in self.batch([index]).items()}


class WindowDataset(Windows):
    """Non-overlapping windows of `seq_len` tokens that cover a split. Window i reads tokens ``i * seq_len ..`` and is
    to predict each one's successor, so every token but the very first is a label exactly once. What the last window
    lacks repeats the last token and has the label -100. `token_bytes` are to be counted. `UserError` for one token."""

    def __init__(self, tokens: np.ndarray | ShardedTokens, seq_len: int, token_bytes: TokenBytes | None = None) -> None:
        if len(tokens) < 2:
            raise UserError(f"data: a split of {len(tokens)} token(s) has nothing to predict; give more text")
        self.tokens, self.seq_len, self.token_bytes = tokens, seq_len, token_bytes
        self.counted = token_bytes is not None

    def __len__(self) -> int:
        return -(-(len(self.tokens) - 1) // self.seq_len)

    def batch(self, indices: Indices) -> dict[str, Tensor]:
        last = len(self.tokens) - 1
        first = np.asarray(indices, dtype=np.int64)[:, None] * self.seq_len
        where = first + np.arange(self.seq_len + 1)
        ids = self.tokens[np.minimum(where, last)].astype(np.int64)
        labels = ids[:, 1:].copy()
        labels[where[:, 1:] > last] = IGNORE_INDEX
        return {"input_ids": torch.from_numpy(ids[:, :-1].copy()), "labels": torch.from_numpy(labels)}

    def text_bytes(self, indices: Indices) -> float:
        assert self.token_bytes is not None
        first = np.asarray(indices, dtype=np.int64)[:, None] * self.seq_len
        where = (first + np.arange(1, self.seq_len + 1)).ravel()
        where = where[where < len(self.tokens)]
        return float(self.token_bytes(where, self.tokens[where]).sum())

    def words(self, starts: WordStarts) -> np.ndarray:
        return words_of_windows(self.tokens, self.seq_len, len(self), starts)


class MixtureWindows(Windows):
    """The windows of several parts, of one length, counted through one part after another."""

    def __init__(self, parts: Sequence[Windows]) -> None:
        self.parts = parts
        self.seq_len = parts[0].seq_len
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def batch(self, indices: Indices) -> dict[str, Tensor]:
        windows = np.asarray(indices, dtype=np.int64)
        part_of = np.searchsorted(self._ends, windows, side="right")
        shape = (len(windows), self.seq_len)
        batch = {name: torch.empty(shape, dtype=torch.int64) for name in ("input_ids", "labels")}
        for i, part in enumerate(self.parts):
            rows = np.flatnonzero(part_of == i)
            if len(rows):
                read = part.batch(windows[rows] - (self._ends[i] - len(part)))
                for name, tensor in batch.items():
                    tensor[torch.from_numpy(rows)] = read[name]
        return batch
