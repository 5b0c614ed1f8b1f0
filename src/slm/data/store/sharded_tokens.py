"""Tokens that lie in several memory-mapped files, read as if they were one array."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


class ShardedTokens:
    """The tokens of several files, one after another: what `WindowDataset` asks of an array.

    Args:
        files: of at least one token each.
        lengths: tokens in each.
        dtype: of the ids.
    """

    def __init__(self, files: Sequence[Path], lengths: Sequence[int], dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self._arguments = files, lengths, dtype
        self._ends = np.cumsum(lengths, dtype=np.int64)
        self._starts = self._ends - lengths
        self._shards = [np.memmap(file, dtype=dtype, mode="r") for file in files]

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __reduce__(self) -> Any:
        """To a process that is not forked go the paths, not the tokens."""
        return ShardedTokens, self._arguments

    def __getitem__(self, where: np.ndarray) -> np.ndarray:
        """The tokens at positions `where`, of any shape, each in ``0 .. len - 1``."""
        if len(self._shards) == 1:
            return self._shards[0][where]
        shard_of = np.searchsorted(self._ends, where, side="right")
        found = np.empty(where.shape, self.dtype)
        for shard in np.unique(shard_of).tolist():
            here = shard_of == shard
            found[here] = self._shards[shard][where[here] - self._starts[shard]]
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All of them in memory."""
        return np.concatenate(self._shards).astype(dtype or self.dtype, copy=False)

    def tolist(self) -> list[int]:
        """All of them."""
        return np.asarray(self).tolist()
