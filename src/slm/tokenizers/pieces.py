"""A closed list of text pieces with an unknown token: what characters and words have in common."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from slm.tokenizers.base import StreamDecoder, Tokenizer

REPLACEMENT = "\ufffd"
SPECIAL_TEXTS = (REPLACEMENT, "", "")
"""What the special ids `<unk>`, end of text and padding, 0 to 2, decode to."""


class PieceTokenizer(Tokenizer):
    """Id 0 is `<unk>`, 1 ends a text, 2 pads, and 3 onwards are `pieces` in their order.

    Decoding joins pieces; an unknown one reads as U+FFFD.

    Args:
        pieces: distinct, non-empty.
    """

    unk_id = 0
    eos_id = 1
    pad_id = 2

    def __init__(self, pieces: Sequence[str]) -> None:
        self._pieces = list(pieces)
        self._texts = [*SPECIAL_TEXTS, *self._pieces]
        self.vocab_size = len(self._texts)

    @abstractmethod
    def _rust_regex(self) -> tokenizers.Regex:
        """What a piece is, for the Rust library."""

    @property
    def _special_spellings(self) -> tuple[str, str, str]:
        """``<unk>``, end of text and padding, spelt like nothing that occurs in a piece."""
        unk, eos, pad = (_unlike(self._pieces, name) for name in ("<unk>", "<|endoftext|>", "<|pad|>"))
        return unk, eos, pad

    def to_huggingface(self) -> tokenizers.Tokenizer:
        """A vocabulary of whole pieces, and the pattern that finds them.

        Only the model knows the unknown token. `transformers` makes whatever it is told to be an ``unk_token``
        special, and special tokens leave nothing in decoded text; here an unknown piece leaves U+FFFD.
        """
        unk, eos, pad = self._special_spellings
        vocab = {text: i for i, text in enumerate((unk, eos, pad, *self._pieces))}
        backend = tokenizers.Tokenizer(models.WordLevel(vocab, unk_token=unk))
        backend.pre_tokenizer = pre_tokenizers.Split(self._rust_regex(), behavior="isolated")
        backend.decoder = decoders.Replace(unk, REPLACEMENT)
        backend.add_special_tokens([eos, pad])
        return backend

    @abstractmethod
    def split(self, text: str) -> Sequence[str]:
        """The pieces of `text`, one for each of its ids."""

    @functools.cached_property
    def bytes_of_id(self) -> np.ndarray:
        """(vocab_size,) int64: those of the pieces, and of one character for an unknown one."""
        return np.array([1, 0, 0, *(len(piece.encode()) for piece in self._pieces)])

    def text_bytes(self, text: str, ids: np.ndarray) -> np.ndarray:
        """An unknown piece stands for what is written there."""
        found = self.bytes_of_id[ids]
        unknown = np.flatnonzero(ids == self.unk_id)
        if len(unknown):
            pieces = self.split(text)
            found[unknown] = [len(pieces[i].encode()) for i in unknown.tolist()]
        return found

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`."""
        return "".join([self._texts[i] for i in self.check_ids(ids)])

    def stream_decoder(self) -> StreamDecoder:
        """A decoder that holds nothing back: a piece never depends on the next."""
        return _PieceStreamDecoder(self)

    def state(self) -> dict[str, Any]:
        """The pieces."""
        return {"pieces": self._pieces}


def _unlike(pieces: Sequence[str], name: str) -> str:
    while any(name in piece for piece in pieces):
        name = f"<{name}>"
    return name


class _PieceStreamDecoder(StreamDecoder):
    def __init__(self, tokenizer: PieceTokenizer) -> None:
        self._tokenizer = tokenizer

    def push(self, token_id: int) -> str:
        return self._tokenizer.decode([token_id])

    def flush(self) -> str:
        return ""
