"""Characters: the smallest vocabulary that reads well, fitted on the training text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tokenizers

from slm.errors import UserError
from slm.registry import register_tokenizer
from slm.tokenizers.pieces import SPECIAL_TEXTS, PieceTokenizer


@register_tokenizer("simple")
class SimpleTokenizer(PieceTokenizer):
    """One id a character seen in fitting; any other character is `<unk>`."""

    kind = "simple"

    def __init__(self, pieces: Sequence[str]) -> None:
        super().__init__(pieces)
        codes = np.fromiter(map(ord, pieces), dtype=np.int64, count=len(pieces))
        # Indexed by code point; the last entry stays unknown and catches all that lie beyond.
        self._id_of_code = np.full(codes.max(initial=0) + 2, self.unk_id, dtype=np.int64)
        self._id_of_code[codes] = np.arange(len(pieces)) + len(SPECIAL_TEXTS)

    @classmethod
    def create(cls, texts: Iterable[str]) -> SimpleTokenizer:
        """Fit on the set of characters in `texts`, sorted by code point.

        Raises:
            UserError: there is no character in `texts`.
        """
        characters: set[str] = set()
        for text in texts:
            characters.update(text)
        if not characters:
            raise UserError("tokenizer=simple got no text to collect characters from: check that the data is not empty")
        return cls(sorted(characters))

    def encode(self, text: str) -> list[int]:
        """One id a character."""
        codes = np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), dtype="<u4")
        ids: list[int] = self._id_of_code[np.minimum(codes, len(self._id_of_code) - 1)].tolist()
        return ids

    def split(self, text: str) -> str:
        """Its characters."""
        return text

    def _rust_regex(self) -> tokenizers.Regex:
        return tokenizers.Regex(r"[\s\S]")

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> SimpleTokenizer:
        """The inverse of `state`."""
        return cls(state["pieces"])
