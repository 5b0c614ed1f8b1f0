"""The kinds that fit a vocabulary: characters, words, byte pairs."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm.errors import UserError
from slm.tokenizers.bpe import MIN_BUDGET_BYTES, BpeTokenizer, even_sample
from slm.tokenizers.pieces import RegexTokenizer, SimpleTokenizer
from slm.tokenizers.pre_tokenizer import SPLITS


def test_an_unknown_character_reads_as_the_replacement_character() -> None:
    tokenizer = SimpleTokenizer.create(["cab"])
    assert tokenizer.vocab_size == 3 + 3
    assert tokenizer.encode("abc") == [3, 4, 5]
    assert tokenizer.encode("a\x00b🙂") == [3, 0, 4, 0]
    assert tokenizer.decode([3, 0, 4]) == "a\ufffdb"


@given(text=st.text(min_size=1))
@settings(max_examples=60, deadline=None)
def test_text_of_known_pieces_comes_back(text: str) -> None:
    for tokenizer in (SimpleTokenizer.create([text]), RegexTokenizer.create([text], min_frequency=1)):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_words_are_ranked_by_count_then_code_point() -> None:
    tokenizer = RegexTokenizer.create(["b a b", "c a d"], max_vocab_size=3 + 3, min_frequency=1)
    assert [tokenizer.decode([i]) for i in range(3, tokenizer.vocab_size)] == [" ", "a", "b"]
    assert tokenizer.encode("a d") == [4, 3, tokenizer.unk_id]
    assert tokenizer.decode(tokenizer.encode("a d")) == "a \ufffd"


def test_rare_words_are_unknown() -> None:
    tokenizer = RegexTokenizer.create(["x x y"], min_frequency=2)
    assert tokenizer.encode("xy") == tokenizer.encode("y") == [tokenizer.unk_id]
    with pytest.raises(UserError, match=r"found 1 different pieces and none 2 times.*min_frequency"):
        RegexTokenizer.create(["once"])


def test_a_pattern_that_skips_text_loses_none_of_it() -> None:
    text = "a1b22 c"
    tokenizer = RegexTokenizer.create([text], min_frequency=1, pattern=r"(\d)+|x*")
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_broken_pattern_is_refused() -> None:
    with pytest.raises(UserError, match="is not a regular expression"):
        RegexTokenizer.create(["text"], pattern="(")


WORDS = ["alpha", "beta", "_gamma", "42", "(x)", "\n    return", "日本", "naïve"]


def corpus(documents: int) -> list[str]:
    draw = random.Random(1)
    return [" ".join(draw.choices(WORDS, k=50)) for _ in range(documents)]


def test_training_is_deterministic() -> None:
    """Counts tie everywhere in this corpus; the order of merges must not follow a hash table."""
    texts = [*corpus(20), " ".join(a + b for a in WORDS for b in WORDS)]
    first = BpeTokenizer.create(texts, vocab_size=500, min_frequency=1)
    second = BpeTokenizer.create(iter(texts), vocab_size=500, min_frequency=1)
    assert first.fingerprint == second.fingerprint


def test_the_smallest_vocabulary_is_the_bytes() -> None:
    tokenizer = BpeTokenizer.create(corpus(5), vocab_size=258)
    assert tokenizer.vocab_size == 258
    assert len(tokenizer.encode("日本")) == 6


def test_a_split_is_that_of_the_model_it_is_named_after() -> None:
    """And what is cut so is told in terms by which others know it; what was saved before keeps its own."""
    text = "x = foo.bar(123)\n    return"
    pieces = {
        "gpt2": ["x", "Ġ=", "Ġfoo", ".", "bar", "(", "123", ")", "ĊĠĠĠ", "Ġreturn"],
        "qwen2": ["x", "Ġ=", "Ġfoo", ".bar", "(", "1", "2", "3", ")Ċ", "ĠĠĠ", "Ġreturn"],
        "llama3": ["x", "Ġ=", "Ġfoo", ".bar", "(", "123", ")Ċ", "ĠĠĠ", "Ġreturn"],
        "lines": ["x", "Ġ=", "Ġfoo", ".bar", "(", "1", "2", "3", ")", "ĊĠĠĠĠ", "return"],
    }
    for split, expected in pieces.items():
        tokenizer = BpeTokenizer.create([text] * 9, split=split, vocab_size=300)  # type: ignore[arg-type]
        cut = tokenizer.to_huggingface().pre_tokenizer.pre_tokenize_str(text)
        assert [piece for piece, _ in cut] == expected, split
        assert tokenizer.cuts == (SPLITS[split],)
        assert BpeTokenizer.from_state(tokenizer.state()).cuts == (SPLITS[split],)


def test_indentation_is_one_token_and_a_line_may_be_cut_after_it() -> None:
    texts = ["if x:\n        y = 1\n        return y\n"] * 4
    tokenizer = BpeTokenizer.create(texts, split="lines", vocab_size=300)
    assert len(tokenizer.encode("\n        ")) == 1
    assert tokenizer.encode("if x:\n        ") + tokenizer.encode("return y") == tokenizer.encode(
        "if x:\n        return y"
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
def test_a_forked_worker_encodes_in_silence() -> None:
    """`tokenizers` up to 0.22 warns in every forked child of a process that has encoded in parallel."""
    script = """
        import os
        from slm.tokenizers.bpe import BpeTokenizer
        tokenizer = BpeTokenizer.create(["some text"] * 9, vocab_size=260)
        texts = ["some text"] * 99
        expected = tokenizer.encode_batch(texts)
        child = os.fork()
        if child == 0:
            os._exit(0 if tokenizer.encode_batch(texts) == expected else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert "TOKENIZERS_PARALLELISM" not in os.environ
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_sample_that_fits_is_everything() -> None:
    texts = ["a" * 3000, "", "é日🙂"]
    assert "".join(even_sample(iter(texts), 10_000)) == "".join(texts)


def test_a_sample_keeps_its_budget_and_each_texts_share() -> None:
    texts = ["a" * 400_000, *["b" * 1000] * 200, "日" * 66_666]  # 400, 200 and 200 thousand bytes
    sample = even_sample(iter(texts), 200_000)
    sizes = {letter: sum(len(chunk.encode()) for chunk in sample if letter in chunk) for letter in "ab日"}
    assert 195_000 < sum(sizes.values()) <= 200_000
    assert sizes["a"] == pytest.approx(100_000, rel=0.2)
    assert sizes["b"] == pytest.approx(50_000, rel=0.3)
    assert sizes["日"] == pytest.approx(50_000, rel=0.3)
    assert [chunk[0] for chunk in sample] == sorted(chunk[0] for chunk in sample)
    assert even_sample(texts, 200_000) == sample


def test_the_smallest_budget_holds_the_widest_chunk() -> None:
    assert even_sample(["🙂" * 5000], MIN_BUDGET_BYTES) == ["🙂" * 1024]
