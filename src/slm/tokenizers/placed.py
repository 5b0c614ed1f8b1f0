"""Ids that know which characters they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


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
