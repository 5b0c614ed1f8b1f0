"""Which bytes of a text each of its tokens stands for: what bits per byte are counted by, never decoded tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tokenizers

from slm.tokenizers.byte_level import CHARACTERS

_SPACE = "\u2581"  # SentencePiece's
_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")


def stretched(estimates: np.ndarray, total: int) -> np.ndarray:
    """`estimates` (n,) in proportion, in whole numbers that are `total` together; themselves if they are."""
    if not len(estimates):
        return estimates
    if (before := int(estimates.sum())) == 0:
        estimates, before = np.ones_like(estimates), len(estimates)
    return estimates if before == total else np.diff(np.cumsum(estimates) * total // before, prepend=0)


def by_ends(text: str, ends: Sequence[int], estimates: np.ndarray) -> np.ndarray:
    """Bytes of UTF-8 that tokens stand for, (n,) int64, together those of `text`.

    Args:
        text: all of it.
        ends: (n,) where each token's characters end. What no token holds (dropped space, say) is the next one's, at the
            end the last one's.
        estimates: (n,) bytes each token would have by itself: tokens that end in one character share it so.
    """
    last = np.minimum(np.maximum.accumulate(np.asarray(ends, dtype=np.int64)), len(text))
    if not len(last):
        return last
    last[-1] = len(text)
    codes = np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), dtype="<u4")
    size = 1 + sum((codes >= first).astype(np.int64) for first in (0x80, 0x800, 0x10000))
    found = np.diff(np.concatenate([[0], np.cumsum(size)])[last], prepend=0)
    begins = np.flatnonzero(np.diff(last, prepend=-1))
    counts = np.diff(begins, append=len(last))
    for i in np.flatnonzero(counts > 1):
        shared = slice(begins[i], begins[i] + counts[i])
        found[shared] = stretched(estimates[shared], int(found[shared].sum()))
    return found


def bytes_of_spellings(backend: tokenizers.Tokenizer, vocab_size: int) -> np.ndarray:
    """(vocab_size,) int64: bytes that the ids of a vocabulary that is not byte-level stand for as a rule, special ones
    0. SentencePiece's ``▁`` is a space, its ``<0x0A>`` a byte; WordPiece's ``##`` is nothing."""
    table = np.zeros(vocab_size, dtype=np.int64)
    for token, token_id in backend.get_vocab(with_added_tokens=True).items():
        plain = token.removeprefix("##").replace(_SPACE, " ")
        table[token_id] = 1 if _BYTE_TOKEN.fullmatch(token) else len(plain.encode())
    for token_id, added in backend.get_added_tokens_decoder().items():
        table[token_id] = 0 if added.special else len(added.content.encode())
    return table


def spells_bytes(backend: tokenizers.Tokenizer) -> bool:
    """Whether the bytes of any text are those of its tokens, but for bytes that the vocabulary lacks: one of GPT-2's
    kind that normalises nothing and puts nothing in front."""
    found: dict[str, Any] = json.loads(backend.to_str())
    return found["normalizer"] is None and _is_whole(found, ()) and _cuts_bytes(found["pre_tokenizer"] or {"type": ""})


def has_all_bytes(backend: tokenizers.Tokenizer) -> bool:
    """Whether a byte-level vocabulary lacks none: SmolLM2's has no U+0004, say, and drops it without a word."""
    return all(backend.token_to_id(character) is not None for character in CHARACTERS)


def spells_bytes_after_a_space(backend: tokenizers.Tokenizer) -> bool:
    """The same of one of SentencePiece's kind, but that a space may be put in front of a text."""
    found: dict[str, Any] = json.loads(backend.to_str())
    steps = [*_steps(found["normalizer"], "normalizers"), *_steps(found["pre_tokenizer"], "pretokenizers")]
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    return found["model"].get("byte_fallback") is True and _is_whole(found, bytes_) and all(map(_spells_spaces, steps))


def _is_whole(found: Mapping[str, Any], alphabet: Sequence[str]) -> bool:
    """A model that can write every byte, and added tokens that take no space from beside them."""
    model = found["model"]
    return (
        model["type"] == "BPE"
        and not any(model.get(name) for name in ("continuing_subword_prefix", "end_of_word_suffix"))
        and all(character in model["vocab"] for character in alphabet)
        and not any(added["lstrip"] or added["rstrip"] for added in found["added_tokens"] if not added["special"])
    )


def _steps(part: Mapping[str, Any] | None, several: str) -> Sequence[Mapping[str, Any]]:
    if part is None:
        return []
    steps: Sequence[Mapping[str, Any]] = part[several] if part["type"] == "Sequence" else [part]
    return steps


def _cuts_bytes(cutter: Mapping[str, Any]) -> bool:
    *before, last = _steps(cutter, "pretokenizers")
    return (
        last["type"] == "ByteLevel"
        and not last["add_prefix_space"]
        and all(one["type"] == "Digits" or (one["type"] == "Split" and one["behavior"] != "Removed") for one in before)
    )


def _spells_spaces(step: Mapping[str, Any]) -> bool:
    return (
        step["type"] == "Metaspace"
        or (step["type"] == "Prepend" and step["prepend"] == _SPACE)
        or (step["type"] == "Replace" and (step["pattern"], step["content"]) == ({"String": " "}, _SPACE))
        or (step["type"] == "Split" and step["behavior"] != "Removed")
    )
