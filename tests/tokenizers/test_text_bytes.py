"""Which bytes of a text a token stands for: of the text as it was, whatever the vocabulary makes of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from slm.tokenizers.base import Tokenizer
from slm.tokenizers.bpe import BpeTokenizer
from slm.tokenizers.byte import ByteTokenizer
from slm.tokenizers.extended import ExtendedTokenizer
from slm.tokenizers.huggingface import HuggingFaceTokenizer
from slm.tokenizers.pieces import RegexTokenizer, SimpleTokenizer

TEXTS = ["the cat sat on the naïve mat", "日本 étude\n"] * 3


class Given(HuggingFaceTokenizer):
    """A vocabulary that came from elsewhere."""

    kind = "given"
    create = None  # type: ignore[assignment]


def changed(**parts: Any) -> Given:
    """A byte-level vocabulary with other parts around it."""
    backend = tokenizers.Tokenizer.from_str(BpeTokenizer.create(TEXTS, vocab_size=300).to_huggingface().to_str())
    for name, part in parts.items():
        setattr(backend, name, part)
    return Given(backend, "<|endoftext|>")


def llama() -> Given:
    """As Llama 2's: a space ahead of every text, bytes for what has no piece."""
    pieces = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁tehca", "▁t", "he", "▁the"]
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he")]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(steps)
    return Given(backend, "</s>")


def bert() -> Given:
    """Lower case, accents and space gone, unknown words."""
    backend = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer, backend.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=60, special_tokens=["[UNK]", "[SEP]"], show_progress=False)
    backend.train_from_iterator(["the cat sat"] * 5, trainer)
    return Given(backend, "[SEP]")


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "byte": ByteTokenizer,
    "bpe": lambda: BpeTokenizer.create(TEXTS, vocab_size=300),
    "extended": lambda: ExtendedTokenizer(SimpleTokenizer.create(["the cat"]), ["<|im_start|>"], None),
    "simple": lambda: SimpleTokenizer.create(["the cat"]),
    "regex": lambda: RegexTokenizer.create(["the cat the cat"]),
    "normalised": lambda: changed(normalizer=normalizers.NFC()),
    "spaced": lambda: changed(pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "llama": llama,
}
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False)
MADE = {name: make() for name, make in KINDS.items()}


def counted(tokenizer: Tokenizer, text: str) -> list[int]:
    found: list[int] = tokenizer.text_bytes(text, np.array(tokenizer.encode(text), dtype=np.int64)).tolist()
    return found


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("byte", "né", [1, 1, 1]),
        ("regex", "the naïve cat", [3, 1, 6, 1, 3]),  # an unknown word has its own bytes, not those of U+FFFD
        ("simple", "tü日", [1, 2, 3]),
        ("extended", "tü", [1, 2]),
        ("normalised", "e\u0301", [1, 2]),  # two tokens for the two bytes of é, written as three
        ("spaced", "the", [3]),  # the space ahead is in no text
        ("llama", "the é", [3, 1, 1, 1]),
        ("llama", " the", [0, 4]),
    ],
)
def test_each_token(kind: str, text: str, expected: list[int]) -> None:
    assert counted(MADE[kind], text) == expected


def test_a_byte_that_a_vocabulary_lacks() -> None:
    """SmolLM2's has no U+0004 and drops it: its byte is the next token's, and ids alone do not tell."""
    found = json.loads(BpeTokenizer.create(TEXTS, vocab_size=300).to_huggingface().to_str())
    last = max(found["model"]["vocab"].items(), key=lambda item: item[1])
    found["model"]["vocab"]["\u0104"], found["model"]["vocab"][last[0]] = last[1], found["model"]["vocab"]["\u0104"]
    del found["model"]["vocab"]["\u0104"]  # how GPT-2 spells it
    found["model"]["merges"] = []
    tokenizer = Given(tokenizers.Tokenizer.from_str(json.dumps(found)), "<|endoftext|>")
    assert not tokenizer.spells_exactly()
    assert counted(tokenizer, "a\x04b\x04\x04") == [1, 4]
    assert counted(tokenizer, "ab") == [1, 1]


def test_what_is_dropped_is_the_next_tokens() -> None:
    """And at the end the last one's; an unknown word and one without its accents stand for all that they were."""
    assert counted(bert(), "  The cát, 日本x ") == [5, 5, 1, 4, 3, 2]


@pytest.mark.parametrize("kind", MADE)
@given(text=st.text(max_size=30) | st.text(" the\u0301éE🙂", max_size=30))
@settings(max_examples=60, deadline=None)
def test_together_they_are_the_text(kind: str, text: str) -> None:
    """For any text, with nothing below 0; by the ids alone where the vocabulary says that this is right."""
    tokenizer = MADE[kind]
    found = counted(tokenizer, text)
    assert sum(found) == len(text.encode())
    assert min(found, default=0) >= 0
    if tokenizer.spells_exactly():
        assert found == tokenizer.bytes_of_id[tokenizer.encode(text)].tolist()


def test_whose_ids_say_it_all() -> None:
    """Wrongly said, counts would be off unseen; not said, every document is looked at again."""
    assert [name for name, tokenizer in MADE.items() if tokenizer.spells_exactly()] == ["byte", "bpe"]
    assert changed(pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.Digits(), BYTES])).spells_exactly()
    split = pre_tokenizers.Split(" ", "removed")
    assert not changed(pre_tokenizer=pre_tokenizers.Sequence([split, BYTES])).spells_exactly()
