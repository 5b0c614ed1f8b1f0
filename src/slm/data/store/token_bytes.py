"""How many bytes of text each token of a split stands for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np


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
