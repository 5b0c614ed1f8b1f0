"""UTF-8 bytes: nothing to fit, no text it cannot write."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from slm.registry import register_tokenizer
from slm.tokenizers.base import StreamDecoder, Tokenizer
from slm.tokenizers.byte_level import CHARACTERS
from slm.tokenizers.byte_stream import ByteStreamDecoder, decode_bytes

EOS_TOKEN = "<|endoftext|>"
PAD_TOKEN = "<|pad|>"
_TOKEN_BYTES = [bytes([value]) for value in range(256)] + [b"", b""]


@register_tokenizer("byte")
class ByteTokenizer(Tokenizer):
    """Ids 0 to 255 are the bytes themselves, 256 ends a text, 257 pads."""

    kind = "byte"
    vocab_size = 258
    eos_id = 256
    pad_id = 257

    @classmethod
    def create(cls, texts: Iterable[str]) -> ByteTokenizer:
        """The one there is; `texts` is not read."""
        return cls()

    def to_huggingface(self) -> tokenizers.Tokenizer:
        """Byte pairs of which none are merged."""
        spellings = [*CHARACTERS, EOS_TOKEN, PAD_TOKEN]
        backend = tokenizers.Tokenizer(models.BPE(vocab={text: i for i, text in enumerate(spellings)}, merges=[]))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.decoder = decoders.ByteLevel()
        backend.add_special_tokens([EOS_TOKEN, PAD_TOKEN])
        return backend

    def encode(self, text: str) -> list[int]:
        """One id a byte of UTF-8."""
        return list(text.encode())

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`."""
        return decode_bytes(_TOKEN_BYTES, self.check_ids(ids))

    @functools.cached_property
    def bytes_of_id(self) -> np.ndarray:
        """(vocab_size,) int64: one each."""
        return np.array(list(map(len, _TOKEN_BYTES)))

    def spells_exactly(self) -> bool:
        """True."""
        return True

    def stream_decoder(self) -> StreamDecoder:
        """A decoder that holds back incomplete characters."""
        return ByteStreamDecoder(self, _TOKEN_BYTES)

    def state(self) -> dict[str, Any]:
        """Nothing: all are alike."""
        return {}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> ByteTokenizer:
        """The inverse of `state`."""
        return cls()
