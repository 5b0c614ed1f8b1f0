"""Characters: the smallest vocabulary that reads well; and what it has in common with words."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from slm.errors import UserError
from slm.registry import register_tokenizer
from slm.tokenizers.stream import ByteTableTokenizer

N_SPECIAL = 3
_REPLACEMENT = "\ufffd"


class PieceTokenizer(ByteTableTokenizer):
    """A closed list: id 0 is `<unk>`, 1 ends a text, 2 pads, and 3 onwards are `pieces` in their order.

    Decoding joins pieces, which are distinct and not empty; an unknown one reads as U+FFFD.
    """

    unk_id = 0
    eos_id = 1
    pad_id = 2

    def __init__(self, pieces: Sequence[str]) -> None:
        self._pieces = list(pieces)
        self._token_bytes = [_REPLACEMENT.encode(), b"", b"", *(piece.encode() for piece in self._pieces)]
        self.vocab_size = len(self._token_bytes)

    @abstractmethod
    def split(self, text: str) -> Sequence[str]:
        """The pieces of `text`, one for each of its ids."""

    @abstractmethod
    def _rust_regex(self) -> tokenizers.Regex: ...

    def to_huggingface(self) -> tokenizers.Tokenizer:
        # Only the model knows the unknown token. `transformers` makes whatever it is told to be an ``unk_token``
        # special, and special tokens leave nothing in decoded text; here an unknown piece leaves U+FFFD.
        unk, eos, pad = (_unlike(self._pieces, name) for name in ("<unk>", "<|endoftext|>", "<|pad|>"))
        vocab = {text: i for i, text in enumerate((unk, eos, pad, *self._pieces))}
        backend = tokenizers.Tokenizer(models.WordLevel(vocab, unk_token=unk))
        backend.pre_tokenizer = pre_tokenizers.Split(self._rust_regex(), behavior="isolated")
        backend.decoder = decoders.Replace(unk, _REPLACEMENT)
        backend.add_special_tokens([eos, pad])
        return backend

    @functools.cached_property
    def bytes_of_id(self) -> np.ndarray:
        return np.array([1, *map(len, self._token_bytes[1:])])  # an unknown piece: of one character

    def text_bytes(self, text: str, ids: np.ndarray) -> np.ndarray:
        found = self.bytes_of_id[ids]
        unknown = np.flatnonzero(ids == self.unk_id)
        if len(unknown):  # stands for what is written there
            pieces = self.split(text)
            found[unknown] = [len(pieces[i].encode()) for i in unknown.tolist()]
        return found

    def state(self) -> dict[str, Any]:
        return {"pieces": self._pieces}


def _unlike(pieces: Sequence[str], name: str) -> str:
    """`name` in as many brackets as it takes to occur in no piece."""
    while any(name in piece for piece in pieces):
        name = f"<{name}>"
    return name


@register_tokenizer("simple")
class SimpleTokenizer(PieceTokenizer):
    """One id a character seen in fitting; any other character is `<unk>`."""

    kind = "simple"

    def __init__(self, pieces: Sequence[str]) -> None:
        super().__init__(pieces)
        codes = np.fromiter(map(ord, pieces), dtype=np.int64, count=len(pieces))
        # Indexed by code point; the last entry stays unknown and catches all that lie beyond.
        self._id_of_code = np.full(codes.max(initial=0) + 2, self.unk_id, dtype=np.int64)
        self._id_of_code[codes] = np.arange(len(pieces)) + N_SPECIAL

    @classmethod
    def create(cls, texts: Iterable[str]) -> SimpleTokenizer:
        """Fit on the set of characters in `texts`, sorted by code point."""
        characters = {character for text in texts for character in set(text)}
        if not characters:
            raise UserError("tokenizer=simple got no text to collect characters from: check that the data is not empty")
        return cls(sorted(characters))

    def encode(self, text: str) -> list[int]:
        codes = np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), dtype="<u4")
        return self._id_of_code[np.minimum(codes, len(self._id_of_code) - 1)].tolist()

    def split(self, text: str) -> str:
        return text

    def _rust_regex(self) -> tokenizers.Regex:
        return tokenizers.Regex(r"[\s\S]")

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> SimpleTokenizer:
        return cls(state["pieces"])
