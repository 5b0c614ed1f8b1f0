"""Ids that stand for exact bytes: decoding them, at once or one by one, to UTF-8 text."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence

from slm.tokenizers.base import StreamDecoder, Tokenizer


class ByteStreamDecoder(StreamDecoder):
    """Gives out each character with the id that completes it.

    Args:
        tokenizer: checks the ids.
        token_bytes: the bytes of each id; empty for special ids.
    """

    def __init__(self, tokenizer: Tokenizer, token_bytes: Sequence[bytes]) -> None:
        self._tokenizer = tokenizer
        self._token_bytes = token_bytes
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """The characters completed by this id."""
        (checked,) = self._tokenizer.check_ids([token_id])
        return self._utf8.decode(self._token_bytes[checked])

    def flush(self) -> str:
        """U+FFFD if a character is incomplete, else nothing."""
        text = self._utf8.decode(b"", final=True)
        self._utf8.reset()
        return text


def decode_bytes(token_bytes: Sequence[bytes], ids: Iterable[int]) -> str:
    """Text of checked `ids`, broken UTF-8 as U+FFFD."""
    return b"".join([token_bytes[i] for i in ids]).decode("utf-8", errors="replace")
