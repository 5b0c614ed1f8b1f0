"""A tokenizer as llama.cpp has it: byte-level BPE, cut by a pattern that it knows by name, and held to its own ids."""

import importlib.util
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slm.errors import UserError
from slm.notices import notice
from slm.tokenizers.base import Tokenizer
from slm.tokenizers.pre_tokenizer import ONE_DIGIT, SPLITS

_NAMES: dict[tuple[str, ...], str] = {
    (SPLITS["gpt2"],): "gpt-2",
    (SPLITS["qwen2"],): "qwen2",
    (SPLITS["llama3"],): "llama-bpe",
    (ONE_DIGIT, SPLITS["gpt2"]): "smollm",
}  # llama.cpp's, of patterns by which a text is cut
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5  # GGUF's types of tokens
_COMPARED_BYTES = 100_000
_TEXTS = (
    "def f(x):\n\treturn x  # it's 42\n\n\n    y = 1234567.89 \r\n \r\n  \t\n",
    "I'm, you'LL, we've; THEY'RE don't  The quick brown fox: 3.14 + 2,718 = ?\n",
    "naïve café — Übergröße, señor, œuvre; Привет, мир! Γειά σου. שלום مرحبا\n",
    "日本語のテキスト、한국어 中文 हिन्दी ไทย 🙂👩‍👩‍👧🏳️‍🌈\n",
    '{"key": [1, 22, 333], "x_y": null}  <tag attr="v">text</tag>\n\n| a | b |\n',
)


@dataclass(frozen=True)
class Vocabulary:
    """What a file holds of a tokenizer."""

    cut: str  # llama.cpp's name of how a text is cut
    tokens: list[str]
    types: list[int]
    merges: list[str]


def cut_of(tokenizer: Tokenizer) -> str:
    """llama.cpp's name of how `tokenizer` cuts a text ahead of merging; `UserError` where it knows none."""
    patterns = tokenizer.cuts
    if patterns is None:
        raise UserError(
            f"llama.cpp has no tokenizer that does as this one ({tokenizer.kind}); train with tokenizer=bpe, whose "
            "tokenizer.split=qwen2 (or gpt2, llama3) it knows"
        )
    if patterns not in _NAMES:
        raise UserError(
            f"llama.cpp knows no cut of texts by {' then '.join(map(repr, patterns))[:200]}; train with tokenizer=bpe "
            "and tokenizer.split=qwen2 (or gpt2, llama3)"
        )
    return _NAMES[patterns]


def vocabulary_of(tokenizer: Tokenizer, size: int) -> Vocabulary:
    """With unused tokens up to the model's `size`; `UserError` if llama.cpp has no such tokenizer."""
    cut = cut_of(tokenizer)
    state: dict[str, Any] = json.loads(tokenizer.to_huggingface().to_str())
    if not state["model"]["merges"]:
        raise UserError(f"llama.cpp has no vocabulary without merges, as tokenizer={tokenizer.kind} is; take bpe")
    if state["normalizer"] is not None:
        notice(f"llama.cpp does not normalise texts, which this tokenizer does ({state['normalizer']['type']})")
    tokens = [f"[UNUSED{token_id}]" for token_id in range(size)]
    types = [_UNUSED] * size
    for token, token_id in state["model"]["vocab"].items():
        tokens[token_id], types[token_id] = token, _NORMAL
    for added in state["added_tokens"]:
        tokens[added["id"]] = added["content"]
        types[added["id"]] = _CONTROL if added["special"] else _USER_DEFINED
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in state["model"]["merges"]]
    return Vocabulary(cut, tokens, types, merges)


def check_ids(file: Path, tokenizer: Tokenizer) -> None:
    """Raise `UserError` if llama.cpp, where it is installed, makes other ids of mixed text by the vocabulary in `file`
    than `tokenizer`; where it is not, that is said."""
    if importlib.util.find_spec("llama_cpp") is None:
        notice("the vocabulary was not held to llama.cpp's ids: pip install llama-cpp-python, and convert again")
        return
    from llama_cpp import Llama

    theirs = Llama(str(file), vocab_only=True, verbose=False)
    compared = 0
    for text in _mixed_texts(tokenizer):
        ours = tokenizer.encode(text)
        found = theirs.tokenize(text.encode(), add_bos=False, special=False)
        if found != ours:
            place = next((i for i, (a, b) in enumerate(zip(ours, found, strict=False)) if a != b), len(ours))
            raise UserError(
                f"llama.cpp makes other ids of {tokenizer.decode(ours[max(0, place - 3) : place + 6])!r} than this "
                f"tokenizer: {found[place : place + 4]} in place of {ours[place : place + 4]}; nothing is written"
            )
        compared += len(text.encode())
    notice(f"llama.cpp makes the same ids of {compared:,} bytes of mixed text")


def _mixed_texts(tokenizer: Tokenizer) -> list[str]:
    """Words of the vocabulary itself, then code, marks, spaces and scripts in a seeded order: 100 kB at least."""
    draw = random.Random(0)
    words = [tokenizer.decode([token_id]) for token_id in range(tokenizer.vocab_size)]
    words = [word for word in words if "\ufffd" not in word]
    texts, size = list(_TEXTS), 0
    while size < _COMPARED_BYTES:
        text = draw.choice(_TEXTS).join(draw.choices([*words, " ", "\n", "  ", ""], k=200))
        if draw.random() < 0.8:
            text = "".join(draw.choices(words, k=400))
        texts.append(text)
        size += len(text.encode())
    return texts
