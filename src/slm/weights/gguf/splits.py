"""How vocabularies of GPT-2's kind cut a text ahead of their merges, by the name that GGUF has for it
(``tokenizer.ggml.pre``; ggml-org/llama.cpp `src/llama-vocab.cpp`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tokenizers

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_MARKS_AND_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}%s| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_MARKS_AND_SPACES}"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+%s|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*%s"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


@dataclass(frozen=True)
class Split:
    """The matches of each pattern in turn are cut out, and what lies between them."""

    patterns: tuple[str, ...]
    whole_tokens_first: bool = False  # a piece that is a token is not made of merges
    begins: bool = False  # a text begins with the beginning of text, where the file does not say
    composes: bool = False  # text is brought to NFC, by the vocabulary's own files; llama.cpp leaves that out


GPT2 = Split((_GPT2,))
_DIGITS = Split((r"\p{N}", _GPT2))
_LLAMA3 = Split((_WORDS % "{1,3}",), whole_tokens_first=True, begins=True)
_GROUPS = {
    "gpt-2 gpt2 phi-2 mpt olmo jais jina-es jina-de jina-v2-es jina-v2-de roberta-bpe gigachat exaone4": GPT2,
    "smollm starcoder refact command-r codeshell exaone minerva-7b": _DIGITS,
    "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2": _LLAMA3,
    "dbrx smaug-bpe chatglm-bpe glm4": Split((_WORDS % "{1,3}",)),
    "qwen2 deepseek-r1-qwen": Split((_WORDS % "",), composes=True),
    "stablelm2": Split((_WORDS % "",)),
    "tekken": Split(
        (_CASED % ("", "") + rf"|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_MARKS_AND_SPACES}",),
        whole_tokens_first=True,
        begins=True,
    ),
    "gpt-4o llama4": Split(
        (
            _CASED % (f"{_CONTRACTIONS}?", f"{_CONTRACTIONS}?")
            + rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_MARKS_AND_SPACES}",
        )
    ),
    "default": Split((r"[\p{P}\$\+<=>\^~\|]+", _GPT2.removesuffix(r"|\s+"), r"\p{N}+", "[0-9][0-9][0-9]")),
}
SPLITS = {name: split for names, split in _GROUPS.items() for name in names.split()}


def cut_by(split: Split, backend: tokenizers.Tokenizer) -> None:
    """Let `backend`, a byte-level one, cut texts so."""
    from tokenizers import Regex, normalizers, pre_tokenizers

    cutters = [pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in split.patterns]
    speller = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([*cutters, speller])
    if split.composes:
        backend.normalizer = normalizers.NFC()
