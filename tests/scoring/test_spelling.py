"""Texts to ids as a vocabulary's exported form gives them: what spells a special token is one."""

from __future__ import annotations

import pytest

from slm.chat.template import with_template
from slm.scoring.spelling import SpelledTexts
from slm.tokenizers.base import Tokenizer
from slm.tokenizers.bpe import BpeTokenizer
from slm.tokenizers.byte import ByteTokenizer

TEXT = "the cat sat on the mat, and it's naïve 日本語 🙂.\n"


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    return with_template(BpeTokenizer.create([TEXT] * 9, vocab_size=300, min_frequency=1, split="qwen2"), "chatml")


@pytest.mark.parametrize("text", [TEXT, "<|im_start|>user\nthe cat<|im_end|>\n", "a<|endoftext|>b", "<|im_start|", ""])
def test_ids_are_those_of_the_exported_form(bpe: Tokenizer, text: str) -> None:
    assert SpelledTexts(bpe).ids(text) == bpe.to_huggingface().encode(text, add_special_tokens=False).ids


def test_what_the_vocabulary_puts_ahead_stands_there_once(bpe: Tokenizer) -> None:
    """As `transformers` does it, whose lm-eval model leaves it out where a text spells it already."""
    ahead = ByteTokenizer()
    ahead.begin_ids = (ahead.eos_id,)
    spelled = SpelledTexts(ahead)
    assert spelled.begin_id == ahead.eos_id
    assert spelled.ids("ab", begins=True) == [ahead.eos_id, *b"ab"]
    assert spelled.ids("ab") == list(b"ab")
    assert spelled.ids(f"{spelled.begin}ab", begins=True) == [ahead.eos_id, *b"ab"]
    assert SpelledTexts(bpe).ids("the cat", begins=True) == bpe.encode("the cat"), "this one puts nothing there"


def test_an_empty_context_is_the_begin_that_is_named_else_the_end(bpe: Tokenizer) -> None:
    assert SpelledTexts(bpe).begin_id == bpe.eos_id
    named = with_template(BpeTokenizer.create([TEXT] * 9, vocab_size=300, min_frequency=1), "chatml")
    named.special_names = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    assert SpelledTexts(named).begin_id == named.special_tokens["<|im_start|>"]
    assert SpelledTexts(named).begin == "<|im_start|>"
