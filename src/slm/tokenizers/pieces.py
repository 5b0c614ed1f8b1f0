"""A closed list of text pieces with an unknown token: what characters and words have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

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

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`."""
        return "".join([self._texts[i] for i in self.check_ids(ids)])

    def stream_decoder(self) -> StreamDecoder:
        """A decoder that holds nothing back: a piece never depends on the next."""
        return _PieceStreamDecoder(self)

    def state(self) -> dict[str, Any]:
        """The pieces."""
        return {"pieces": self._pieces}


class _PieceStreamDecoder(StreamDecoder):
    def __init__(self, tokenizer: PieceTokenizer) -> None:
        self._tokenizer = tokenizer

    def push(self, token_id: int) -> str:
        return self._tokenizer.decode([token_id])

    def flush(self) -> str:
        return ""
