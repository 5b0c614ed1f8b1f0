"""Where byte-level vocabularies cut a text ahead of merging: no merge crosses the ends of what a pattern matches."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import tokenizers
from tokenizers import models, normalizers

SPLITS = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    # a word takes a mark before it (".append", "(self"), marks the line's end after them, digits stand alone
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "llama3": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    # no published model's: a line's end with the indentation after it is one piece, so that a prompt which ends with
    # its line, or with the next line's indentation, is cut as in training
    "lines": r"\s*[\r\n][^\S\r\n]*|[^\r\n\p{L}\p{M}\p{N}]?[\p{L}\p{M}]+| ?\p{N}| ?[^\s\p{L}\p{M}\p{N}]+|\s+(?!\S)|\s+",
}
"""Patterns by name: the models' whose they are."""

ONE_DIGIT = r"\p{N}"


def patterns_of(backend: tokenizers.Tokenizer) -> tuple[str, ...] | None:
    """Of a byte-level one: the patterns, each of which cuts what those before it left whole; None where it cuts
    otherwise, puts spaces, or merges by another algorithm or another text."""
    model, normal = backend.model, backend.normalizer
    if not isinstance(model, models.BPE) or model.continuing_subword_prefix or model.end_of_word_suffix:
        return None
    if not isinstance(normal, normalizers.NFC | None):
        return None
    step = backend.pre_tokenizer
    found = [] if step is None else list(_patterns(json.loads(step.__getstate__())))
    return None if None in found else tuple(pattern for pattern in found if pattern is not None)


def _patterns(step: Mapping[str, Any]) -> Iterator[str | None]:
    kind = step["type"]
    if kind == "Sequence":
        for inner in step["pretokenizers"]:
            yield from _patterns(inner)
    elif kind == "Split" and step["behavior"] == "Isolated" and not step["invert"]:
        yield step["pattern"].get("Regex")
    elif kind == "Digits" and step["individual_digits"]:
        yield ONE_DIGIT
    elif kind == "ByteLevel" and not step["add_prefix_space"]:
        yield from [SPLITS["gpt2"]] if step["use_regex"] else []
    else:
        yield None
