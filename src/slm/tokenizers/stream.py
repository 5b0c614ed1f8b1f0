"""Ids to text as they come, never half a character."""

import codecs
import functools
import itertools
from collections.abc import Iterable, Sequence

from slm.tokenizers.base import StreamDecoder, Tokenizer


class ByteStreamDecoder(StreamDecoder):
    """Gives out each character with the id that completes it; `token_bytes` are empty for special ids."""

    def __init__(self, tokenizer: Tokenizer, token_bytes: Sequence[bytes]) -> None:
        self._tokenizer = tokenizer
        self._token_bytes = token_bytes
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        return self._utf8.decode(self._token_bytes[self._tokenizer.check_ids([token_id])[0]])

    def flush(self) -> str:
        text = self._utf8.decode(b"", final=True)
        self._utf8.reset()
        return text


class ByteTableTokenizer(Tokenizer):
    """Ids that stand for exact bytes each, whatever is beside them: `_token_bytes`, empty for special ids."""

    _token_bytes: Sequence[bytes]

    def decode(self, ids: Iterable[int]) -> str:
        return b"".join([self._token_bytes[i] for i in self.check_ids(ids)]).decode("utf-8", errors="replace")

    @functools.cached_property
    def spellings(self) -> Sequence[bytes]:
        return self._token_bytes

    def bytes_of(self, token_id: int) -> bytes:
        return self._token_bytes[self.check_ids([token_id])[0]]

    def stream_decoder(self) -> StreamDecoder:
        return ByteStreamDecoder(self, self._token_bytes)


class PrefixStreamDecoder(StreamDecoder):
    """For decoders whose text of an id depends on its neighbours (SentencePiece's, WordPiece's): what a window of
    recent ids begins with, with and without `unsettling_id` after it, which changes all text that any id could, is
    certain. (`DecodeStream` of `tokenizers` gives out characters that a later byte takes back.)"""

    _WINDOW = 16  # ids kept, at least: enough for any strip or prefix rule at the start of a text to be past

    def __init__(self, tokenizer: Tokenizer, unsettling_id: int, context: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._unsettling_id = unsettling_id
        self._window = list(context)
        self._given = len(tokenizer.decode(context))  # characters of the window's text

    def push(self, token_id: int) -> str:
        self._window.append(token_id)
        text = self._tokenizer.decode(self._window)
        unsettled = self._tokenizer.decode([*self._window, self._unsettling_id])
        certain = common_prefix(text, unsettled).rstrip("\ufffd")
        piece = certain[self._given :]
        self._given = max(self._given, len(certain))
        if certain == text and len(self._window) >= 2 * self._WINDOW:  # so that a push costs the same at any length
            context = self._window[-self._WINDOW :]
            shown = self._tokenizer.decode(context)
            if shown.strip():
                self._window, self._given = context, len(shown)
        return piece

    def flush(self) -> str:
        piece = self._tokenizer.decode(self._window)[self._given :]
        self._window, self._given = [], 0
        return piece


def common_prefix(text: str, other: str) -> str:
    """What both begin with."""
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(text, other, strict=False))
    return text[: sum(1 for _ in same)]
