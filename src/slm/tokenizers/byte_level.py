"""GPT-2's spelling of bytes: a visible character for each, so that any bytes can be a key of a JSON vocabulary."""

from __future__ import annotations

import codecs

import tokenizers
from tokenizers import pre_tokenizers


def _characters() -> str:
    """The character for each byte, 0 to 255 (`bytes_to_unicode` in openai/gpt-2 `src/encoder.py`)."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = iter(range(0x100, 0x200))
    return "".join(chr(byte if byte in visible else next(hidden)) for byte in range(256))


CHARACTERS = _characters()
_BYTE_OF_CODE_POINT = {ord(character): byte for byte, character in enumerate(CHARACTERS)}


def spelt(token: bytes) -> str:
    """The spelling of these bytes."""
    return codecs.charmap_decode(token, "strict", CHARACTERS)[0]


def unspelt(token: str) -> bytes:
    """The bytes of this spelling.

    Raises:
        UnicodeEncodeError: a character stands for no byte.
    """
    return codecs.charmap_encode(token, "strict", _BYTE_OF_CODE_POINT)[0]


def cut_by(pattern: tokenizers.Regex) -> pre_tokenizers.PreTokenizer:
    """What cuts text at the ends of `pattern`'s matches and spells the pieces."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pattern, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
