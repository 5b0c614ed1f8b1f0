"""Words seen: exact for any cut into windows, documents, packing, passes and mixtures; a function of the position."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slm.data.batches import words as words_module
from slm.data.batches.order import MixtureOrder, window_at
from slm.data.batches.samples import SampleSet, SampleWindows, Tokens
from slm.data.batches.windows import WindowDataset
from slm.data.batches.words import WordsSeen, WordStarts
from slm.errors import UserError
from slm.registry import TOKENIZERS
from slm.tokenizers.base import Tokenizer
from slm.tokenizers.byte import ByteTokenizer

# no-break, ideographic and narrow spaces are white space to `str.split`; a zero-width one is none
ALPHABET = [*"abc de\n\t  .é日\u00a0\u3000\u202f\u200b🙂", "\r\n", " ", " "]


def texts(seed: int, n: int) -> list[str]:
    draw = random.Random(seed)
    return ["".join(draw.choices(ALPHABET, k=draw.randrange(0, 60))) for _ in range(n)]


@pytest.fixture(scope="module", params=["byte", "bpe"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    if request.param == "byte":
        return ByteTokenizer()
    return TOKENIZERS.get("bpe").create(iter(texts(0, 400)), vocab_size=300)  # some characters are one token, some not


def tokens_of(tokenizer: Tokenizer, documents: list[str]) -> np.ndarray:
    return np.array([i for text in documents for i in (*tokenizer.encode(text), tokenizer.eos_id)], dtype=np.uint16)


@pytest.mark.parametrize("at_once", [1, 7, 1 << 20])
@pytest.mark.parametrize("seq_len", [1, 3, 16, 10_000])
def test_windows_hold_all_words_once(
    tokenizer: Tokenizer, seq_len: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However text is cut into windows, or read in blocks, also inside characters and words."""
    monkeypatch.setattr(words_module, "_AT_ONCE", at_once)
    documents = texts(1, 60)
    windows = WindowDataset(tokens_of(tokenizer, documents), seq_len)
    found = windows.words(WordStarts(tokenizer))
    assert len(found) == len(windows)
    assert found.sum() == sum(len(text.split()) for text in documents)


def test_a_word_is_that_of_the_window_it_begins_in() -> None:
    """Each window against the text that stands before its end."""
    byte, text = ByteTokenizer(), "The cat\u3000sat.\n\nA second  line, été"
    ids = np.array(byte.encode(text), dtype=np.uint16)
    found = WindowDataset(ids, 4).words(WordStarts(byte))
    for window in range(len(found) - 1):
        before = bytes(ids[: 4 * (window + 1)].tolist()).decode(errors="ignore")
        assert found[: window + 1].sum() == len(before.split())


def test_packed_conversations_hold_the_words_of_their_samples(tokenizer: Tokenizer) -> None:
    """A sample's last word and the first of the next in its window are two."""
    documents = [f"x{text}y" for text in texts(2, 40)]
    encoded = [np.array(tokenizer.encode(text), dtype=np.int32) for text in documents]
    samples = SampleSet.of([Tokens(ids, np.ones(len(ids), bool), np.zeros(len(ids), np.int32)) for ids in encoded])
    for seed in (None, 3):
        windows = SampleWindows(samples, seq_len=300, seed=seed)
        expected = [sum(len(documents[i].split()) for i in window) for window in windows.windows]
        assert windows.words(WordStarts(tokenizer)).tolist() == expected


@pytest.mark.parametrize("parts", [1, 2])
def test_words_are_a_function_of_the_position(parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked in any order, over several passes, of one text and of a mixture, it is the sum over the samples ahead."""
    monkeypatch.setattr(words_module, "_BLOCK", 16)
    of_window = np.arange(1, 24)
    order: Any = partial(window_at, n_windows=23, seed=5)
    if parts == 2:
        order = MixtureOrder([9, 14], [0.3, 0.7], seed=5)
    windows = order(np.arange(100))
    for position in (0, 7, 100, 23, 46, 8):
        assert WordsSeen(of_window, order).at(position) == of_window[windows[:position]].sum()
    seen = WordsSeen(of_window, order)
    assert [seen.at(position) for position in (50, 7, 32, 60)] == [
        of_window[windows[:n]].sum() for n in (50, 7, 32, 60)
    ]
    if parts == 1:
        assert seen.at(3 * 23) == 3 * seen.in_a_pass


def test_a_vocabulary_that_does_not_tell_its_bytes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"words cannot be counted: .* tokenizer=simple"):
        WordStarts(TOKENIZERS.get("simple").create(iter(["some text"])))
