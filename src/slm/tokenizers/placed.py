"""Ids that know which characters they stand for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from slm.tokenizers.text_bytes import by_ends


@dataclass
class PlacedIds:
    """Ids of a text, in its order.

    Attributes:
        ids: n of them.
        starts, ends: of each, the characters ``text[start:end]`` that it writes, all of it or a part of it: the ids of
            one character's bytes share its place. Neighbours may overlap only so.
    """

    ids: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, ids: Sequence[int], starts: Sequence[int], ends: Sequence[int]) -> None:
        """Put these behind the others."""
        self.ids += ids
        self.starts += starts
        self.ends += ends

    def within(self, start: int, stop: int, specials: Collection[int]) -> np.ndarray:
        """(n,) bool: which ids hold a character from `start` up to `stop`. One of the `specials` belongs to where
        it begins: it may hold spaces around it."""
        starts, ends = np.array(self.starts), np.array(self.ends)
        is_special = np.isin(self.ids, list(specials))
        return (starts < stop) & np.where(is_special, starts >= start, ends > start)

    def text_bytes(self, parts: Sequence[str], bytes_of_id: np.ndarray) -> list[int]:
        """How many bytes of the text each id stands for: of what lies between special tokens, all together.

        Args:
            parts: what was encoded (`Tokenizer.encode_parts`).
            bytes_of_id: (vocab_size,) those that each stands for as a rule.
        """
        found = bytes_of_id[self.ids]
        text = "".join(parts[::2])
        if int(found.sum()) != len(text.encode()):
            lengths = [(len(part), len(part) * (number % 2 == 0)) for number, part in enumerate(parts) if part]
            whole, without_specials = np.cumsum([(0, 0), *lengths], axis=0).T
            found = by_ends(text, np.interp(self.ends, whole, without_specials).astype(np.int64).tolist(), found)
        counts: list[int] = found.tolist()
        return counts
