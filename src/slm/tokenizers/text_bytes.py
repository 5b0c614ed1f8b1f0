"""Where ids lie in a text, and which of its bytes each stands for: bits per byte are counted so."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np


def stretched(estimates: np.ndarray, total: int) -> np.ndarray:
    """`estimates` (n,) in proportion, in whole numbers that are `total` together; themselves if they are."""
    if not len(estimates):
        return estimates
    if (before := int(estimates.sum())) == 0:
        estimates, before = np.ones_like(estimates), len(estimates)
    return estimates if before == total else np.diff(np.cumsum(estimates) * total // before, prepend=0)


def by_ends(text: str, ends: Sequence[int], estimates: np.ndarray) -> np.ndarray:
    """Bytes of UTF-8 that tokens whose characters end at `ends` (n,) stand for, (n,) int64, together those of `text`.
    What no token holds is the next one's, or the last one's; `estimates` (n,) share a character that several end in."""
    last = np.minimum(np.maximum.accumulate(np.asarray(ends, dtype=np.int64)), len(text))
    if not len(last):
        return last
    last[-1] = len(text)
    codes = np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), dtype="<u4")
    size = 1 + sum((codes >= first).astype(np.int64) for first in (0x80, 0x800, 0x10000))
    found = np.diff(np.concatenate([[0], np.cumsum(size)])[last], prepend=0)
    begins = np.flatnonzero(np.diff(last, prepend=-1))
    counts = np.diff(begins, append=len(last))
    for i in np.flatnonzero(counts > 1):
        shared = slice(begins[i], begins[i] + counts[i])
        found[shared] = stretched(estimates[shared], int(found[shared].sum()))
    return found


@dataclass
class PlacedIds:
    """Ids of a text in its order, and the characters ``text[start:end]`` of each; bytes of one character share it."""

    ids: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def within(self, start: int, stop: int, specials: Collection[int]) -> np.ndarray:
        """(n,) bool: which ids hold a character from `start` up to `stop`."""
        starts, ends = np.array(self.starts), np.array(self.ends)
        is_special = np.isin(self.ids, list(specials))  # belongs to where it begins: it may hold spaces around it
        return (starts < stop) & np.where(is_special, starts >= start, ends > start)

    def text_bytes(self, parts: Sequence[str], bytes_of_id: np.ndarray) -> list[int]:
        """How many bytes each id stands for of what lies between special tokens of `parts` (`Tokenizer.encode_parts`),
        together all; as a rule `bytes_of_id` (vocab_size,)."""
        found = bytes_of_id[self.ids]
        text = "".join(parts[::2])
        if int(found.sum()) != len(text.encode()):
            lengths = [(len(part), len(part) * (number % 2 == 0)) for number, part in enumerate(parts) if part]
            whole, without_specials = np.cumsum([(0, 0), *lengths], axis=0).T
            found = by_ends(text, np.interp(self.ends, whole, without_specials).astype(np.int64).tolist(), found)
        return found.tolist()
