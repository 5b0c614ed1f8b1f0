"""Tokens in several memory-mapped files, read as if they were one array; and how many bytes of text each stands for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


class ShardedTokens:
    """The tokens of several files, of at least one each, one after another: what `WindowDataset` asks of an array."""

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
        return np.concatenate(self._shards).astype(dtype or self.dtype, copy=False)

    def tolist(self) -> list[int]:
        """All of them."""
        return np.asarray(self).tolist()


def others_file(file: Path) -> Path:
    """Beside a shard's `file`: (2, k) uint32, where in it the tokens are whose bytes are not their id's, and their
    bytes."""
    return file.with_suffix(".bytes")


class TokenBytes:
    """Bytes of tokens by their ids, but for those that are written down by position: of an unknown word, of a character
    that a vocabulary normalises, of a token that stands before a text.

    Args:
        of_id: (vocab_size,) bytes that an id stands for as a rule.
        lengths: tokens in each shard.
        others: of each shard the `others_file`; None where it has none.
    """

    def __init__(self, of_id: np.ndarray, lengths: Sequence[int], others: Sequence[Path | None]) -> None:
        self.of_id = of_id
        self._ends = np.cumsum(lengths, dtype=np.int64)
        self._starts = self._ends - lengths
        self._others = others

    def __call__(self, where: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """Of the tokens `ids` at positions `where` of the split, of any one shape."""
        found = self.of_id[ids]
        for shard in np.unique(np.searchsorted(self._ends, where, side="right")).tolist():
            if (file := self._others[shard]) is not None:
                places, sizes = np.memmap(file, dtype="<u4", mode="r").reshape(2, -1)
                local = where - self._starts[shard]
                at = np.minimum(np.searchsorted(places, local), len(places) - 1)
                listed = places[at] == local
                found[listed] = sizes[at[listed]]
        return found
