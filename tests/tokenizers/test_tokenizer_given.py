"""The kinds whose vocabulary is given: tiktoken's and Hugging Face's."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import requests
import tiktoken
import tokenizers
from tokenizers import models

from slm.errors import UserError
from slm.tokenizers.base import Tokenizer, load_tokenizer
from slm.tokenizers.hf_gpt2 import HfGpt2Tokenizer
from slm.tokenizers.tiktoken import TiktokenTokenizer

DATA = Path(os.environ.get("SLM_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
SAMPLES = [
    "",
    "hello world",
    "  def f(x):\n\treturn x  # it's 42\n\n",
    "naïve 日本語 🙂",
    "a<|endoftext|>b",
    "\x00\ufffd",
]


def test_ids_are_tiktokens_own_and_gaps_decode_to_nothing(made: dict[str, Tokenizer]) -> None:
    tokenizer, reference = made["tiktoken"], tiktoken.get_encoding("tiny")
    for text in SAMPLES:
        assert tokenizer.encode(text) == reference.encode_ordinary(text)
    assert tokenizer.pad_id is None
    assert tokenizer.vocab_size == reference.n_vocab == 256 + 8 + 3 + 2
    assert tokenizer.decode(range(256 + 8, tokenizer.vocab_size)) == ""


def test_a_saved_tiktoken_needs_no_plugin_or_download(
    made: dict[str, Tokenizer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made["tiktoken"].save(tmp_path)
    monkeypatch.setattr(tiktoken, "get_encoding", None)
    monkeypatch.setattr(tiktoken.load, "read_file", None)
    assert load_tokenizer(tmp_path).encode("hello the é") == made["tiktoken"].encode("hello the é")


def test_gpt2s_vocabulary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = DATA / "tiktoken_cache"
    if not cache.is_dir():
        pytest.skip(f"no {cache}: set SLM_TEST_DATA to a folder with tiktoken_cache/ (r50k_base)")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(cache))
    tokenizer = TiktokenTokenizer.create([])
    assert (tokenizer.vocab_size, tokenizer.eos_id, tokenizer.pad_id) == (50257, 50256, None)
    assert tokenizer.encode("Hello, I'm a language model,") == [15496, 11, 314, 1101, 257, 3303, 2746, 11]
    tokenizer.save(tmp_path)
    assert load_tokenizer(tmp_path).fingerprint == tokenizer.fingerprint


def test_a_vocabulary_out_of_reach_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(path: str) -> bytes:
        raise requests.ConnectionError(path)

    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tiktoken.load, "read_file", no_network)
    with pytest.raises(UserError, match=r"\Atokenizer\.encoding 'p50k_edit'.*TIKTOKEN_CACHE_DIR.*\Z"):
        TiktokenTokenizer.create([], encoding="p50k_edit")


def test_an_unknown_encoding_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'r50k_base'"):
        TiktokenTokenizer.create([], encoding="r50k-base")


def test_parity_with_transformers_gpt2(hf_folder: Path, tmp_path: Path) -> None:
    """From a tokenizer.json and from GPT-2's own pair of files, which only `transformers` reads."""
    transformers = pytest.importorskip("transformers")
    source = hf_folder / "byte_level" / "tokenizer.json"
    tokenizers.Tokenizer.from_file(str(source)).model.save(str(tmp_path))
    vocab = json.loads((tmp_path / "vocab.json").read_text())
    (tmp_path / "vocab.json").write_text(json.dumps({**vocab, "<|endoftext|>": len(vocab)}))
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    reference = transformers.GPT2TokenizerFast.from_pretrained(str(tmp_path))
    for name in (source, tmp_path):
        tokenizer = HfGpt2Tokenizer.create([], name=str(name))
        assert (tokenizer.vocab_size, tokenizer.eos_id, tokenizer.pad_id) == (len(vocab) + 1, len(vocab), None)
        for text in SAMPLES:
            ids = reference(text, split_special_tokens=True)["input_ids"]
            assert tokenizer.encode(text) == ids
            assert tokenizer.decode(ids) == reference.decode(ids, clean_up_tokenization_spaces=False)
        broken = list(range(0, len(vocab), 7))
        assert tokenizer.decode(broken) == reference.decode(broken, clean_up_tokenization_spaces=False)


def test_sentencepiece_ids_are_the_librarys_without_truncation(made: dict[str, Tokenizer], hf_folder: Path) -> None:
    reference = tokenizers.Tokenizer.from_file(str(hf_folder / "sentencepiece" / "tokenizer.json"))
    reference.no_truncation()
    text = "the cat sat on the mat; it is 日本 and not a dog"
    assert made["sentencepiece"].encode(text) == reference.encode(text, add_special_tokens=False).ids
    assert (made["sentencepiece"].eos_id, made["sentencepiece"].pad_id) == (2, None)


@pytest.mark.parametrize(
    ("config", "eos", "pad"),
    [
        ({"eos_token": "<s>", "pad_token": "<s>"}, 1, None),
        ({"eos_token": {"content": "</s>"}, "pad_token": "<unk>"}, 2, 0),
        ({"eos_token": "<absent>", "pad_token": "<absent>"}, 2, None),
    ],
)
def test_the_files_beside_a_vocabulary_name_its_tokens(
    hf_folder: Path, tmp_path: Path, config: dict[str, object], eos: int, pad: int | None
) -> None:
    shutil.copy(hf_folder / "sentencepiece" / "tokenizer.json", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = HfGpt2Tokenizer.create([], name=str(tmp_path))
    assert (tokenizer.eos_id, tokenizer.pad_id) == (eos, pad)


def test_an_ordinary_added_token_named_as_end_of_text_becomes_special(tmp_path: Path) -> None:
    """Otherwise text that spells it would end the document."""
    backend = tokenizers.Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    backend.add_tokens(["<eos>"])
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = HfGpt2Tokenizer.create([], name=str(tmp_path))
    assert tokenizer.eos_id == 1
    assert tokenizer.encode("<eos>") == [0]
    assert tokenizer.decode([1]) == ""


def test_a_vocabulary_that_cannot_be_used_says_how_to_mend(
    hf_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"no end-of-text token.*set tokenizer\.eos_token"):
        HfGpt2Tokenizer.create([], name=str(hf_folder / "wordpiece"))
    with pytest.raises(UserError, match=r"tried 'nope'"):
        HfGpt2Tokenizer.create([], name=str(hf_folder / "wordpiece"), eos_token="nope")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"is not a tokenizer\.json"):
        HfGpt2Tokenizer.create([], name=str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("nobody/no-such-model", "./no/such/folder"):
        with pytest.raises(UserError, match=rf"'{name}' is not a local folder or file.*tokenizer\.json\Z"):
            HfGpt2Tokenizer.create([], name=name)


def test_an_empty_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(UserError, match=r"\Atransformers cannot make a tokenizer from .*\Z"):
        HfGpt2Tokenizer.create([], name=str(tmp_path))


def test_a_local_tokenizers_files_are_known(hf_folder: Path) -> None:
    """A token store is made again when they change, though the setting `name` stays the same."""
    folder = next(path for path in hf_folder.iterdir() if path.is_dir())
    assert HfGpt2Tokenizer.source_files(name=str(folder)) == sorted(folder.iterdir())
    assert HfGpt2Tokenizer.source_files(name=str(folder / "tokenizer.json")) == [folder / "tokenizer.json"]
    assert HfGpt2Tokenizer.source_files(name="some/hub-name") == []
    assert TiktokenTokenizer.source_files(encoding="r50k_base") == []
