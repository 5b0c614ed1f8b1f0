"""What `Tokenizer` promises, held against every kind."""

from __future__ import annotations

import string
from itertools import chain
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from slm.tokenizers.base import Tokenizer
from slm.tokenizers.load import load_tokenizer
from slm.tokenizers.tiktoken import TiktokenTokenizer

LOSSLESS = ["byte", "bpe", "tiktoken", "byte_level"]
ALL = [*LOSSLESS, "simple", "characters", "regex", "sentencepiece", "wordpiece"]

any_text = st.text() | st.text(alphabet="he l\n\t'é日🙂\ufffd<|endoftext|>")
few = settings(max_examples=60, deadline=None)


def streamed(tokenizer: Tokenizer, ids: list[int]) -> str:
    decoder = tokenizer.stream_decoder()
    return "".join([decoder.push(i) for i in ids]) + decoder.flush()


@pytest.mark.parametrize("label", LOSSLESS)
@given(text=any_text)
@few
def test_any_text_comes_back(made: dict[str, Tokenizer], label: str, text: str) -> None:
    assert made[label].decode(made[label].encode(text)) == text


@given(text=any_text)
@few
def test_byte_fallback_brings_back_what_the_vocabulary_lacks(made: dict[str, Tokenizer], text: str) -> None:
    """Metaspace itself cannot tell "▁" from a space, nor a leading space from the one it puts there."""
    text = text.replace("▁", "_").lstrip(" ")
    assert made["sentencepiece"].decode(made["sentencepiece"].encode(text)) == text


@pytest.mark.parametrize("label", ALL)
@given(texts=st.lists(any_text, max_size=4))
@few
def test_ids_are_in_range_never_special_and_the_same_in_a_batch(
    made: dict[str, Tokenizer], label: str, texts: list[str]
) -> None:
    tokenizer = made[label]
    batch = tokenizer.encode_batch(texts)
    assert batch == [tokenizer.encode(text) for text in texts]
    for ids in batch:
        assert all(0 <= i < tokenizer.vocab_size for i in ids)
        assert not {tokenizer.eos_id, tokenizer.pad_id} & set(ids)


@pytest.mark.parametrize("label", ALL)
@given(data=st.data())
@few
def test_streamed_pieces_join_to_the_decoded_text(made: dict[str, Tokenizer], label: str, data: st.DataObject) -> None:
    """Ids at random break UTF-8; ids cut out of an encoded text break it where a model would."""
    tokenizer = made[label]
    at_random = st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=100)
    cut_out = st.tuples(st.text(), st.integers(0, 3), st.integers(0, 3)).map(
        lambda drawn: tokenizer.encode(drawn[0])[drawn[1] :][: -drawn[2] or None]
    )
    ids = list(chain.from_iterable(data.draw(st.lists(at_random | cut_out, max_size=4))))
    assert streamed(tokenizer, ids) == tokenizer.decode(ids)


@pytest.mark.parametrize("label", ALL)
def test_a_stream_holds_no_finished_text_back(made: dict[str, Tokenizer], label: str) -> None:
    """Also at a length that makes the window of a context-dependent decoder move on."""
    tokenizer = made[label]
    ids = tokenizer.encode("the cat sat on the mat " * 30 + "dog")
    decoder = tokenizer.stream_decoder()
    pieces = [decoder.push(i) for i in ids]
    assert "".join(pieces) == tokenizer.decode(ids)
    assert sum(map(bool, pieces)) > len(pieces) * 0.9
    assert decoder.flush() == ""


def test_a_stream_never_takes_back_a_byte_run_that_turns_out_broken(made: dict[str, Tokenizer]) -> None:
    """With byte fallback one broken byte makes U+FFFD of the whole run, so "é" is certain only at its end."""
    tokenizer = made["sentencepiece"]
    e_acute, broken = [3 + 0xC3, 3 + 0xA9], 3 + 0xFF
    decoder = tokenizer.stream_decoder()
    assert [decoder.push(i) for i in [*e_acute, broken]] == ["", "", ""]
    assert decoder.flush() == "\ufffd" * 3 == tokenizer.decode([*e_acute, broken])


@pytest.mark.parametrize("label", ALL)
def test_text_that_spells_a_special_token_is_text(made: dict[str, Tokenizer], label: str, tmp_path: Path) -> None:
    """Also after loading: `tokenizers` does not save the switch that makes it so."""
    made[label].save(tmp_path)
    for tokenizer in (made[label], load_tokenizer(tmp_path)):
        for name in ("<|endoftext|>", "<|pad|>", "</s>", "[SEP]", "<|fim|>"):
            ids = tokenizer.encode(f"the{name}cat")
            assert not {tokenizer.eos_id, tokenizer.pad_id} & set(ids)
            if label in [*LOSSLESS, "sentencepiece"]:
                assert tokenizer.decode(ids) == f"the{name}cat"


@pytest.mark.parametrize("label", ALL)
def test_special_ids_decode_to_nothing(made: dict[str, Tokenizer], label: str) -> None:
    tokenizer = made[label]
    ids = tokenizer.encode("the cat")
    special = [tokenizer.eos_id] + ([] if tokenizer.pad_id is None else [tokenizer.pad_id])
    assert len(set(special)) == len(special)
    assert tokenizer.decode([*special, *ids, *special]) == tokenizer.decode(ids) == "the cat"
    assert streamed(tokenizer, [*special, *ids, *special]) == "the cat"


@pytest.mark.parametrize("label", ALL)
def test_saving_keeps_everything(made: dict[str, Tokenizer], label: str, tmp_path: Path) -> None:
    made[label].save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    text = string.printable + "naïve 日本語 🙂 the cat"
    assert loaded.fingerprint == made[label].fingerprint
    assert loaded.encode(text) == made[label].encode(text)
    assert (loaded.vocab_size, loaded.eos_id, loaded.pad_id) == (
        made[label].vocab_size,
        made[label].eos_id,
        made[label].pad_id,
    )


@pytest.mark.parametrize("label", ALL)
def test_ids_out_of_range_are_refused(made: dict[str, Tokenizer], label: str) -> None:
    tokenizer = made[label]
    for bad in (-1, tokenizer.vocab_size):
        with pytest.raises(ValueError, match=f"token id {bad} is outside"):
            tokenizer.decode([bad])
        with pytest.raises(ValueError, match=f"token id {bad} is outside"):
            tokenizer.stream_decoder().push(bad)


@given(text=st.text("ab1²_' \t\n\u00a0\u3000.-漢é\u0301"))
def test_a_long_text_in_pieces_has_the_ids_of_the_whole(text: str) -> None:
    """With the pattern that joins most: an optional character before letters, line breaks after marks."""
    words = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    pattern = words + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
    ranks = {bytes([i]): i for i in range(256)} | {b" a": 256, b"ab": 257, b"  ": 258, b" \n": 259}
    tokenizer = TiktokenTokenizer(
        tiktoken.Encoding("made", pat_str=pattern, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 260})
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("slm.tokenizers.tiktoken._PIECE", 1)
        (ids,) = tokenizer.encode_arrays([text])
    assert ids.tolist() == tokenizer.encode(text)
