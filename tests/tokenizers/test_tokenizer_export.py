"""Hugging Face's form of every kind: `AutoTokenizer` loads it and does what ours does."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import regex
import tiktoken
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, models, pre_tokenizers, processors

from slm.errors import UserError
from slm.tokenizers.base import Tokenizer
from slm.tokenizers.hf_files import save_huggingface
from slm.tokenizers.hf_gpt2 import HfGpt2Tokenizer
from slm.tokenizers.load import load_tokenizer
from slm.tokenizers.pieces import DEFAULT_PATTERN, RegexTokenizer
from slm.tokenizers.rust_regex import rust_pattern
from slm.tokenizers.spelling import CHARACTERS, spelt
from slm.tokenizers.tiktoken import TiktokenTokenizer, merges_of

DATA = Path(os.environ.get("SLM_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
ALL = ["byte", "simple", "characters", "regex", "bpe", "tiktoken", "byte_level", "sentencepiece", "wordpiece"]

any_text = (
    st.text()
    | st.text(alphabet="he l\n\t\r'é日🙂\ufffd\u200d\u0301²_1\xa0\u2028")
    | st.lists(
        st.sampled_from(["<|endoftext|>", "<|pad|>", "<unk>", "</s>", "[SEP]", "<|fim|>", "the", " cat", "\n\n", "  "])
    ).map("".join)
)
few = settings(max_examples=40, deadline=None)


def auto_tokenizer(folder: Path, **options: Any) -> Any:
    return pytest.importorskip("transformers").AutoTokenizer.from_pretrained(str(folder), **options)


@pytest.fixture(scope="module")
def exported(made: dict[str, Tokenizer], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("exported")
    for label, tokenizer in made.items():
        save_huggingface(tokenizer, root / label, max_seq_len=1 << 20)
    return {label: root / label for label in made}


@pytest.mark.parametrize("label", ALL)
@given(data=st.data())
@few
def test_the_export_encodes_and_decodes_alike(
    made: dict[str, Tokenizer], exported: dict[str, Path], label: str, data: st.DataObject
) -> None:
    """Text with the spellings of special tokens in it as well, and ids that no text gives."""
    tokenizer, backend = made[label], tokenizers.Tokenizer.from_file(str(exported[label] / "tokenizer.json"))
    backend.encode_special_tokens = True
    texts = data.draw(st.lists(any_text, max_size=8))
    batch = [encoding.ids for encoding in backend.encode_batch(texts, add_special_tokens=False)]
    assert batch == tokenizer.encode_batch(texts)
    at_random = st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=30)
    for ids in [*batch, *data.draw(st.lists(at_random, max_size=4))]:
        assert backend.decode(ids, skip_special_tokens=True) == tokenizer.decode(ids)


@pytest.mark.parametrize("label", ALL)
def test_auto_tokenizer_takes_it_as_it_is(made: dict[str, Tokenizer], exported: dict[str, Path], label: str) -> None:
    """Beside the configuration of a model too, whose own class of tokenizer would cut the text by other rules."""
    text, tokenizer = "the  cat\n\n sat (12345) naïve 日本 🙂 <|endoftext|> <unk> ~", made[label]
    for model_type in (None, "gpt2", "llama", "gpt_neox", "qwen3"):
        if model_type:
            (exported[label] / "config.json").write_text(json.dumps({"model_type": model_type}))
        auto = auto_tokenizer(exported[label], split_special_tokens=True)
        ids = tokenizer.encode(text)
        assert auto(text, add_special_tokens=False)["input_ids"] == ids
        assert auto.decode(ids, skip_special_tokens=True) == tokenizer.decode(ids)
        assert (auto.eos_token_id, auto.pad_token_id) == (tokenizer.eos_id, tokenizer.pad_id)
        assert auto.model_max_length == 1 << 20
        assert set(auto(text)) == {"input_ids", "attention_mask"}


def test_text_that_spells_a_special_token_is_that_token_there(
    made: dict[str, Tokenizer], exported: dict[str, Path]
) -> None:
    """The one difference, and what Hugging Face's users expect."""
    for label, tokenizer in made.items():
        auto = auto_tokenizer(exported[label])
        assert auto(auto.eos_token, add_special_tokens=False)["input_ids"] == [tokenizer.eos_id]
        assert tokenizer.eos_id not in tokenizer.encode(auto.eos_token)


@pytest.mark.parametrize("label", ["simple", "regex", "bpe", "tiktoken"])
def test_an_export_can_be_taken_in_again(made: dict[str, Tokenizer], exported: dict[str, Path], label: str) -> None:
    again = HfGpt2Tokenizer.create([], name=str(exported[label]))
    assert (again.vocab_size, again.eos_id, again.pad_id) == (
        made[label].vocab_size,
        made[label].eos_id,
        made[label].pad_id,
    )
    assert again.encode("the cat é ~") == made[label].encode("the cat é ~")


@pytest.mark.nightly
def test_gpt2s_vocabulary_with_the_merges_that_tiktoken_does_not_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = DATA / "tiktoken_cache"
    if not cache.is_dir():
        pytest.skip(f"no {cache}: set SLM_TEST_DATA to a folder with tiktoken_cache/ (r50k_base)")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(cache))
    tokenizer = TiktokenTokenizer.create([])
    save_huggingface(tokenizer, tmp_path, max_seq_len=1024)
    auto = auto_tokenizer(tmp_path)
    assert len(json.loads((tmp_path / "tokenizer.json").read_text())["model"]["merges"]) == 50_000
    for file in sorted(Path(json.__file__).parents[1].glob("[a-c]*.py"))[:20]:
        text = file.read_text(encoding="utf-8")
        assert auto(text)["input_ids"] == tokenizer.encode(text)


def folder_as_published(folder: Path, source: Path, config: dict[str, Any]) -> Path:
    """À la Llama 3: begins a text with a token of its own; an end of turn that swallows the line break after it."""
    backend = tokenizers.Tokenizer.from_file(str(source / "tokenizer.json"))
    backend.add_special_tokens(["<s>", AddedToken("<|eot|>", rstrip=True, normalized=False, special=True)])
    backend.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", backend.token_to_id("<s>"))]),
        ]
    )
    folder.mkdir()
    backend.save(str(folder / "tokenizer.json"))
    saved = json.loads(backend.to_str())["added_tokens"]
    content = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "added_tokens_decoder": {str(token.pop("id")): token for token in saved},
        **config,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("in_bundle", [False, True])
def test_a_published_tokenizer_comes_back_as_it_was(hf_folder: Path, tmp_path: Path, in_bundle: bool) -> None:
    """Through a saved model too: what it adds to a text, its names, its chat template, what special tokens swallow."""
    swallowing = {"content": "<|eot|>", "lstrip": False, "rstrip": True, "single_word": False, "normalized": False}
    names = {"bos_token": "<s>", "eos_token": {"__type": "AddedToken", **swallowing}, "pad_token": "<|eot|>"}
    template = "{{ bos_token }}{% for m in messages %}{{ m['content'] }}<|eot|>\n{% endfor %}"
    config = {**names, "unk_token": "a", "chat_template": template, "add_prefix_space": False}
    source = folder_as_published(tmp_path / "source", hf_folder / "byte_level", config)
    tokenizer: Tokenizer = HfGpt2Tokenizer.create([], name=str(source))
    if in_bundle:
        tokenizer.save(tmp_path)
        tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.pad_id is None  # one token cannot both end a text and be nothing
    save_huggingface(tokenizer, tmp_path / "again", max_seq_len=64)
    original, again = auto_tokenizer(source), auto_tokenizer(tmp_path / "again")
    for text in ("the cat", "", "<s> the<|eot|>\n cat <|endoftext|>", "naïve 日本 🙂"):
        for add_special_tokens in (True, False):
            expected = original(text, add_special_tokens=add_special_tokens)["input_ids"]
            assert again(text, add_special_tokens=add_special_tokens)["input_ids"] == expected
    for name in ("bos_token", "eos_token", "pad_token", "unk_token", "chat_template"):
        assert getattr(again, name) == getattr(original, name) is not None
    talk = [{"role": "user", "content": "the cat"}]
    assert again.apply_chat_template(talk, tokenize=False) == original.apply_chat_template(talk, tokenize=False)


def test_a_space_put_before_the_text_stays(hf_folder: Path, tmp_path: Path) -> None:
    """`transformers` 4 takes it back unless tokenizer_config.json says it again."""
    backend = tokenizers.Tokenizer.from_file(str(hf_folder / "byte_level" / "tokenizer.json"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = HfGpt2Tokenizer.create([], name=str(tmp_path))
    save_huggingface(tokenizer, tmp_path / "again", max_seq_len=64)
    assert json.loads((tmp_path / "again" / "tokenizer_config.json").read_text())["add_prefix_space"] is True
    assert auto_tokenizer(tmp_path / "again")("the")["input_ids"] == tokenizer.encode(" the")[-1:]


def test_a_pattern_that_would_be_read_otherwise_is_refused() -> None:
    for pattern, reason in ((r"^\w+|[\s\S]", "cuts text such as"), (r"(?P<word>\w+)|\W", "does not take it")):
        tokenizer = RegexTokenizer.create(["one two\ntwo one\n"], pattern=pattern)
        with pytest.raises(UserError, match=rf"(?s)tokenizer\.pattern.*{reason}|{reason}.*tokenizer\.pattern"):
            tokenizer.to_huggingface()


def test_an_unknown_piece_may_be_spelt_as_the_unknown_token(tmp_path: Path) -> None:
    """Published word corpora hold "<unk>" as a word."""
    text = "the <unk> of <|pad|> the <unk> <|pad|>"
    tokenizer = RegexTokenizer.create([text], pattern=r"\S+|\s+")
    save_huggingface(tokenizer, tmp_path, max_seq_len=64)
    auto = auto_tokenizer(tmp_path)
    assert auto(text)["input_ids"] == tokenizer.encode(text)
    assert auto.decode(tokenizer.encode(text), skip_special_tokens=True) == tokenizer.decode(tokenizer.encode(text))


@given(
    tokens=st.lists(st.text("ab", min_size=2, max_size=7), max_size=30, unique=True), text=st.text("ab", max_size=60)
)
@settings(max_examples=300, deadline=None)
@pytest.mark.nightly
def test_merges_of_ranks_in_any_order_encode_as_tiktoken_does(tokens: list[str], text: str) -> None:
    """Orders that no training gives, too: a part of later rank than the whole, a token its bytes do not merge to."""
    ranks = {bytes([byte]): byte for byte in range(256)} | {t.encode(): 256 + i for i, t in enumerate(tokens)}
    reference = tiktoken.Encoding("any", pat_str=r"[\s\S]+", mergeable_ranks=ranks, special_tokens={})
    merges = [(spelt(left), spelt(right)) for left, right in merges_of(ranks)]
    vocab = {spelt(token): rank for token, rank in ranks.items()}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=True))
    assert backend.encode(text).ids == reference.encode_ordinary(text)


def test_a_token_that_only_a_whole_piece_can_be() -> None:
    """tiktoken looks a piece up before it merges; a special token spelt like another's bytes has no place, though."""
    ranks = {bytes([byte]): byte for byte in range(256)} | {b"dog": 256}
    for special, refused in (("<|endoftext|>", False), ("Ġ", True)):
        names = {"<|endoftext|>": 257, special: 257}
        encoding = tiktoken.Encoding("any", pat_str=r"\w+|\W", mergeable_ranks=ranks, special_tokens=names)
        tokenizer = TiktokenTokenizer(encoding)
        assert tokenizer.encode("dog dogs") == [256, 32, 100, 111, 103, 115]
        if refused:
            with pytest.raises(UserError, match="special token 'Ġ' is spelt like"):
                tokenizer.to_huggingface()
        else:
            assert tokenizer.to_huggingface().encode("dog dogs").ids == tokenizer.encode("dog dogs")


PUBLISHED = {
    "gpt2": r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s""",
    "cl100k_base": (
        r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|"""
        r"""\s*[\r\n]|\s+(?!\S)|\s"""
    ),
    "ours": DEFAULT_PATTERN,
    "backs_off": r"(?:\d(?:ab|[c\]]){1,2}+){2,}+|\d{2}+\d|[[:alpha:]_]+|[]\[]|[^\w ]|[\s\S]",
}


@pytest.mark.parametrize("name", PUBLISHED)
@given(text=any_text | st.text("1234abc[]_²½ '\r\n", max_size=40))
@few
def test_a_pattern_is_read_as_the_package_regex_reads_it(name: str, text: str) -> None:
    """Its sets are spelt out, so characters newer than the Rust library make no difference."""
    pattern = tokenizers.Regex(rust_pattern(PUBLISHED[name], spell_sets=True))
    cut = pre_tokenizers.Split(pattern, behavior="isolated").pre_tokenize_str(text)
    assert [piece for piece, _ in cut] == [match.group() for match in regex.finditer(PUBLISHED[name], text)]


def test_a_byte_has_the_spelling_that_the_library_gives_it() -> None:
    assert sorted(CHARACTERS) == sorted(pre_tokenizers.ByteLevel.alphabet())
    text = "".join(map(chr, range(0x80))) + "é日🙂"
    pieces = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    assert spelt(text.encode()) == "".join(piece for piece, _ in pieces)
