"""How many words a model has been shown: words by white space (`str.split`), each where it begins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from slm.data.batches.order import Order
from slm.data.store.token_store import ShardedTokens
from slm.errors import UserError
from slm.tokenizers.base import Tokenizer

_AT_ONCE = 1 << 20  # tokens that are looked at at a time
_BLOCK = 1 << 14  # positions that are looked up in one call, whose cost is mostly fixed


class _Spelt(NamedTuple):
    """Of a text: words that begin in it after white space of its own, whether it begins with no white space, and
    whether it ends with some. Where it is empty a text ends: the next word begins anew."""

    inside: int
    opens: bool
    ends_white: bool

    @classmethod
    def of(cls, text: str) -> _Spelt:
        opens = bool(text) and not text[0].isspace()
        return cls(len(text.split()) - opens, opens, not text or text[-1].isspace())


class WordStarts:
    """How many words begin in each token of running text, by the bytes that its tokens stand for. Special tokens are
    borders of texts. `UserError` if the vocabulary does not tell the bytes of every text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        if not tokenizer.spells_exactly():
            raise UserError(
                f"words cannot be counted: the tokens of tokenizer={tokenizer.kind} do not tell what text they stand "
                "for (unknown or normalised words); take bpe, byte, tiktoken or a byte-level one of Hugging Face, or "
                "give trainer.save_at in steps"
            )
        self._spellings = tokenizer.spellings
        whole = [_whole(spelling) for spelling in self._spellings]
        spelt = [_Spelt.of(text or "") for text in whole]
        self._inside, self._opens, self._ends_white = (np.array(column) for column in zip(*spelt, strict=True))
        self.is_part = np.array([text is None for text in whole])  # of a character, at its beginning or its end
        self._known: dict[tuple[int, ...], list[_Spelt]] = {}

    def __call__(
        self, ids: np.ndarray, in_a_word: bool = False, begins: np.ndarray | None = None
    ) -> tuple[np.ndarray, bool]:
        """Of tokens `ids` (n,), (n,) int64; and whether a word may go on behind them, which is to be said of the tokens
        ahead as `in_a_word`. Texts begin behind special tokens and at places `begins` (k,). Characters that begin in
        `ids` end there."""
        inside, opens, ends_white = self._inside[ids], self._opens[ids], self._ends_white[ids]
        for start, group in self._characters(ids):
            for place, spelt in enumerate(group, start):
                inside[place], opens[place], ends_white[place] = spelt
        after_white = np.concatenate([[not in_a_word], ends_white[:-1]])
        if begins is not None:
            after_white[begins] = True
        return inside + (opens & after_white), not ends_white[-1]

    def _characters(self, ids: np.ndarray) -> Iterator[tuple[int, list[_Spelt]]]:
        """Where tokens lie that hold parts of characters, as few together as hold whole ones, and what each spells:
        a character is that of the token it begins in."""
        group: list[int] = []
        next_place = -1
        for place in np.flatnonzero(self.is_part[ids]).tolist():
            group = [*(group if place == next_place else []), int(ids[place])]
            next_place = place + 1
            if (text := _whole(b"".join(self._spellings[i] for i in group))) is not None:
                key = tuple(group)
                if key not in self._known:
                    self._known[key] = self._shared(group, text)
                yield place - len(group) + 1, self._known[key]
                group = []

    def _shared(self, group: Sequence[int], text: str) -> list[_Spelt]:
        ends = np.cumsum([len(self._spellings[i]) for i in group])
        shares = [""] * len(group)
        begin = 0
        for character in text:
            shares[int(np.searchsorted(ends, begin, side="right"))] += character
            begin += len(character.encode())
        spelt, before = [], ""
        for share in shares:  # one in which none begins goes on with the one before
            before = share or before[-1:]
            spelt.append(_Spelt.of(share)._replace(ends_white=_Spelt.of(before).ends_white))
        return spelt


def _whole(spelling: bytes) -> str | None:
    try:
        return spelling.decode()
    except UnicodeDecodeError:
        return None


def words_of_windows(
    tokens: np.ndarray | ShardedTokens, seq_len: int, n_windows: int, starts: WordStarts
) -> np.ndarray:
    """Words that begin in the first `seq_len` tokens of each window of running text, the last one taking what is left:
    (n_windows,) int64, together those of all `tokens` (n,)."""
    words = np.zeros(n_windows, dtype=np.int64)
    start, in_a_word = 0, False
    while start < len(tokens):
        end = min(start + _AT_ONCE, len(tokens))
        while end < len(tokens) and starts.is_part[int(tokens[np.array([end])][0])]:
            end += 1
        where = np.arange(start, end)
        found, in_a_word = starts(tokens[where], in_a_word)
        windows = np.minimum(where // seq_len, n_windows - 1)
        words += np.bincount(windows, weights=found, minlength=n_windows).astype(np.int64)
        start = end
    return words


class WordsSeen:
    """Words of the training samples ahead of a position: a function of the position, as the order of samples is."""

    def __init__(self, of_window: np.ndarray, order: Order) -> None:
        self.of_window = of_window  # (n,), counted through all parts
        self._order = order
        self._before = [0]  # of each block of positions, as far as was asked
        self._within: dict[int, np.ndarray] = {}  # of the last blocks that were asked for

    @property
    def in_a_pass(self) -> int:
        """Of all windows."""
        return int(self.of_window.sum())

    def at(self, position: int) -> int:
        """Of the samples at positions ``0 .. position - 1``."""
        block, place = divmod(position, _BLOCK)
        while len(self._before) <= block:
            self._before.append(self._before[-1] + int(self._sums(len(self._before) - 1)[-1]))
        return self._before[block] + int(self._sums(block)[place])

    def _sums(self, block: int) -> np.ndarray:
        """Words ahead of each position of a block, from its beginning on: (_BLOCK + 1,) int64."""
        if block not in self._within:
            words = self.of_window[self._order(block * _BLOCK + np.arange(_BLOCK))]
            kept = dict([*self._within.items()][-1:])  # a step may begin in one block and end in the next
            self._within = {**kept, block: np.concatenate([[0], np.cumsum(words)])}
        return self._within[block]
