"""Which bytes tokens are spelt with: by a visible character each, or by SentencePiece's ``▁`` and ``<0x0A>``."""

import codecs
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

EOS_TOKEN = "<|endoftext|>"  # GPT-2's
PAD_TOKEN = "<|pad|>"
_SPACE = "\u2581"  # SentencePiece's
_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")

# of each byte, `bytes_to_unicode` in openai/gpt-2 `src/encoder.py`: those that are not visible come from 0x100 on
_VISIBLE = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
_HIDDEN = itertools.count(0x100)
CHARACTERS = "".join(chr(byte if byte in _VISIBLE else next(_HIDDEN)) for byte in range(256))
_BYTE_OF_CODE_POINT = {ord(character): byte for byte, character in enumerate(CHARACTERS)}


def spelt(token: bytes) -> str:
    """The spelling of these bytes."""
    return codecs.charmap_decode(token, "strict", CHARACTERS)[0]


def byte_level(model: models.Model, pattern: tokenizers.Regex | None = None) -> tokenizers.Tokenizer:
    """A tokenizer of GPT-2's kind that cuts text at the ends of the matches of `pattern`, if there is one."""
    backend = tokenizers.Tokenizer(model)
    cutters = [] if pattern is None else [pre_tokenizers.Split(pattern, behavior="isolated")]
    speller = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([*cutters, speller]) if cutters else speller
    backend.decoder = decoders.ByteLevel()
    return backend


def is_byte_level(backend: tokenizers.Tokenizer) -> bool:
    """Whether it is of GPT-2's kind."""
    return isinstance(backend.decoder, decoders.ByteLevel)


def bytes_of_tokens(backend: tokenizers.Tokenizer, vocab_size: int) -> list[bytes]:
    """What each id stands for, nothing for special ones: as a rule where the vocabulary is not byte-level."""
    table, bytes_of = [b""] * vocab_size, _unspelt if is_byte_level(backend) else _plain
    for token, token_id in backend.get_vocab(with_added_tokens=True).items():
        table[token_id] = bytes_of(token)
    for token_id, added in backend.get_added_tokens_decoder().items():
        table[token_id] = b"" if added.special else added.content.encode()
    return table


def _unspelt(token: str) -> bytes:
    try:
        return codecs.charmap_encode(token, "strict", _BYTE_OF_CODE_POINT)[0]
    except UnicodeEncodeError:  # a character stands for no byte
        return token.encode()


def _plain(token: str) -> bytes:
    """SentencePiece's ``▁`` is a space, its ``<0x0A>`` a byte; WordPiece's ``##`` is nothing."""
    if _BYTE_TOKEN.fullmatch(token):
        return bytes.fromhex(token[3:5])
    return token.removeprefix("##").replace(_SPACE, " ").encode()


def keeps_text(backend: tokenizers.Tokenizer) -> bool:
    """Whether the bytes of any text are those of its tokens. Of GPT-2's kind: but for bytes that the vocabulary lacks,
    where it normalises nothing and puts nothing in front. Of SentencePiece's: but for a space in front of a text."""
    found: dict[str, Any] = json.loads(backend.to_str())
    model, alphabet = found["model"], [f"<0x{byte:02X}>" for byte in range(256)]
    normalizers = _steps(found["normalizer"], "normalizers")
    cutters = _steps(found["pre_tokenizer"], "pretokenizers")
    if is_byte_level(backend):
        steps_keep, alphabet = not normalizers and _cut_bytes(cutters), []
    else:
        steps_keep = model.get("byte_fallback") is True and all(map(_spells_spaces, [*normalizers, *cutters]))
    return (
        steps_keep
        and model["type"] == "BPE"
        and not any(model.get(name) for name in ("continuing_subword_prefix", "end_of_word_suffix"))
        and all(byte in model["vocab"] for byte in alphabet)
        # added tokens take no space from beside them
        and not any(added["lstrip"] or added["rstrip"] for added in found["added_tokens"] if not added["special"])
    )


def _steps(part: Mapping[str, Any] | None, several: str) -> Sequence[Mapping[str, Any]]:
    if part is None:
        return []
    return part[several] if part["type"] == "Sequence" else [part]


def _cut_bytes(steps: Sequence[Mapping[str, Any]]) -> bool:
    *before, last = steps or [{"type": None}]
    cut = all(one["type"] == "Digits" or (one["type"] == "Split" and one["behavior"] != "Removed") for one in before)
    return cut and last["type"] == "ByteLevel" and not last["add_prefix_space"]


def _spells_spaces(step: Mapping[str, Any]) -> bool:
    return (
        step["type"] == "Metaspace"
        or (step["type"] == "Prepend" and step["prepend"] == _SPACE)
        or (step["type"] == "Replace" and (step["pattern"], step["content"]) == ({"String": " "}, _SPACE))
        or (step["type"] == "Split" and step["behavior"] != "Removed")
    )
