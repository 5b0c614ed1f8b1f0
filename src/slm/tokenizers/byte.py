"""UTF-8 bytes: nothing to fit, no text it cannot write."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import tokenizers
from tokenizers import models

from slm.registry import register_tokenizer
from slm.tokenizers.spelling import CHARACTERS, EOS_TOKEN, PAD_TOKEN, byte_level
from slm.tokenizers.stream import ByteTableTokenizer


@register_tokenizer("byte")
class ByteTokenizer(ByteTableTokenizer):
    """Ids 0 to 255 are the bytes themselves, 256 ends a text, 257 pads."""

    kind = "byte"
    vocab_size = 258
    eos_id = 256
    pad_id = 257
    _token_bytes = (*(bytes([value]) for value in range(256)), b"", b"")

    @classmethod
    def create(cls, texts: Iterable[str]) -> ByteTokenizer:
        return cls()

    def to_huggingface(self) -> tokenizers.Tokenizer:
        spellings = [*CHARACTERS, EOS_TOKEN, PAD_TOKEN]
        backend = byte_level(models.BPE(vocab={text: i for i, text in enumerate(spellings)}, merges=[]))
        backend.add_special_tokens([EOS_TOKEN, PAD_TOKEN])
        return backend

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def spells_exactly(self) -> bool:
        return True

    def state(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> ByteTokenizer:
        return cls()
