"""The kinds whose vocabulary is given: tiktoken's and Hugging Face's."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import requests
import tiktoken
import tokenizers
from tokenizers import models

from slm.errors import UserError
from slm.tokenizers.base import Tokenizer
from slm.tokenizers.hf_gpt2 import HfGpt2Tokenizer
from slm.tokenizers.load import load_tokenizer
from slm.tokenizers.spelling import spelt
from slm.tokenizers.tiktoken import TiktokenTokenizer, merges_of

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


def test_several_ends_come_with_the_files_and_leave_with_them(tmp_path: Path) -> None:
    """Chat models end a turn with another token than a text; theirs are ids, of which some may be nonsense."""
    backend = tokenizers.Tokenizer(models.WordLevel({"a": 0, "<eos>": 1, "<turn>": 2}, unk_token="a"))
    backend.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text('{"eos_token_id": 0}')
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [1, 2, 99, "x"]}')
    tokenizer = HfGpt2Tokenizer.create([], name=str(tmp_path), eos_token="<eos>")
    assert (tokenizer.also_ends, tokenizer.end_ids) == ((2,), {1, 2})
    (tmp_path / "saved").mkdir()
    tokenizer.save(tmp_path / "saved")
    assert load_tokenizer(tmp_path / "saved").end_ids == {1, 2}
    (tmp_path / "generation_config.json").unlink()
    assert HfGpt2Tokenizer.create([], name=str(tmp_path), eos_token="<eos>").end_ids == {1}
    (tmp_path / "config.json").write_text('{"eos_token_id": [0, 1]}')
    assert HfGpt2Tokenizer.create([], name=str(tmp_path), eos_token="<eos>").end_ids == {0, 1}


@pytest.mark.parametrize(
    ("eos", "template", "given", "ends_a_text", "ends_turns"),
    [
        ("<turn>", "{{ x }}<turn>", None, 1, (2,)),  # SmolLM2, Qwen, Llama 3: their files name the end of a turn
        ("<turn>", "{{ x }}{{ eos_token }}", None, 1, (2,)),
        ("<turn>", "{{ x }}<turn>", "<turn>", 2, ()),  # by setting
        ("<turn>", None, None, 2, ()),  # no chat: it is what the files say
        ("<turn>", "{{ x }}", None, 2, ()),
        ("</s>", "{{ x }}</s>", None, 3, ()),  # TinyLlama: the end of a text ends turns, too
        ("</s>", "{{ x }}</s>", "<|endoftext|>", 1, (3,)),
    ],
)
def test_the_end_of_a_text_is_not_that_of_a_turn(
    tmp_path: Path, eos: str, template: str | None, given: str | None, ends_a_text: int, ends_turns: tuple[int, ...]
) -> None:
    """Documents ended with what a chat model writes after an answer. Both end what it writes, and the template's
    ``eos_token`` is what it was."""
    ids = {"a": 0, "<|endoftext|>": 1, "<turn>": 2, "</s>": 3}
    backend = tokenizers.Tokenizer(models.WordLevel(ids, unk_token="a"))
    backend.add_special_tokens(list(ids)[1:])
    backend.save(str(tmp_path / "tokenizer.json"))
    config = {"eos_token": eos, "pad_token": eos, **({"chat_template": template} if template else {})}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = HfGpt2Tokenizer.create([], name=str(tmp_path), eos_token=given)
    assert (tokenizer.eos_id, tokenizer.also_ends, tokenizer.pad_id) == (ends_a_text, ends_turns, None)
    assert tokenizer.end_ids == {ends_a_text, *ends_turns}
    if ends_turns:
        assert tokenizer.special_names["eos_token"] == eos
        back = tokenizer.with_end_of_text(eos)
        assert (back.eos_id, back.end_ids) == (ids[eos], tokenizer.end_ids)
    with pytest.raises(UserError, match="no token '<none>'"):
        tokenizer.with_end_of_text("<none>")


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
    """From a tokenizer.json and from vocab.json and merges.txt, which only `transformers` reads."""
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


def test_a_list_of_added_tokens_is_no_name(hf_folder: Path, tmp_path: Path) -> None:
    """Every published tokenizer_config.json holds one; it was once read as the name of a token, and failed."""
    shutil.copy(hf_folder / "sentencepiece" / "tokenizer.json", tmp_path)
    config = {"added_tokens_decoder": {"2": {"content": "</s>", "special": True}}, "eos_token": "</s>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert HfGpt2Tokenizer.create([], name=str(tmp_path)).eos_id == 2


@pytest.mark.parametrize(
    ("config", "bos"),
    [({}, "<s>"), ({"bos_token": "</s>"}, "</s>"), ({"bos_token": None}, None), ({"bos_token": "<absent>"}, None)],
)
def test_a_beginning_is_named_by_the_model_only_where_its_tokenizer_is_silent(
    hf_folder: Path, tmp_path: Path, config: dict[str, object], bos: str | None
) -> None:
    """GPT-2's tokenizer files are; Qwen's say that there is none, though its config.json holds an id."""
    shutil.copy(hf_folder / "sentencepiece" / "tokenizer.json", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "config.json").write_text(json.dumps({"bos_token_id": 1}))
    assert HfGpt2Tokenizer.create([], name=str(tmp_path)).special_names.get("bos_token") == bos


@pytest.mark.parametrize("file", ["config", "list", "jinja"])
def test_a_chat_template_travels_and_the_fingerprint_stays(hf_folder: Path, tmp_path: Path, file: str) -> None:
    """A model's data is not other data because its tokenizer learnt how conversations are written."""
    source = tmp_path / "source"
    shutil.copytree(hf_folder / "byte_level", source)
    without = HfGpt2Tokenizer.create([], name=str(source))
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "{{ é }}"}]
    entry = {"config": "{{ é }}", "list": named, "jinja": "older"}[file]
    (source / "tokenizer_config.json").write_text(json.dumps({"chat_template": entry}))
    if file == "jinja":
        (source / "chat_template.jinja").write_text("{{ é }}", encoding="utf-8")
    tokenizer = HfGpt2Tokenizer.create([], name=str(source))
    tokenizer.save(tmp_path)
    assert load_tokenizer(tmp_path).chat_template == tokenizer.chat_template == "{{ é }}"
    assert without.chat_template is None
    assert load_tokenizer(tmp_path).fingerprint == tokenizer.fingerprint == without.fingerprint


def write_gpt2_files(folder: Path, ranks: dict[bytes, int], eos: dict[str, int]) -> None:
    """As OpenAI published them: a version line, a merge a line, an empty line at the end."""
    merges = [f"{spelt(left)} {spelt(right)}" for left, right in merges_of(ranks)]
    (folder / "vocab.bpe").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    (folder / "encoder.json").write_text(json.dumps({spelt(token): rank for token, rank in ranks.items()} | eos))


def test_openais_own_pair_of_files(tmp_path: Path) -> None:
    ranks = {bytes([byte]): byte for byte in range(256)} | {b"he": 256, b" t": 257, b" the": 259, b" th": 258}
    write_gpt2_files(tmp_path, ranks, {"<|endoftext|>": 260})
    tokenizer = HfGpt2Tokenizer.create([], name=str(tmp_path))
    assert (tokenizer.vocab_size, tokenizer.eos_id, tokenizer.pad_id, tokenizer.begin_ids) == (261, 260, None, ())
    assert tokenizer.encode("the the\n<|endoftext|>")[:3] == [ord("t"), 256, 259]
    assert tokenizer.decode([*tokenizer.encode("the thé\n"), 260]) == "the thé\n"
    (tmp_path / "vocab.bpe").write_text("#version: 0.2\nq zz\n")
    with pytest.raises(UserError, match=r"encoder\.json and vocab\.bpe are not GPT-2's.*tokenizer\.json\Z"):
        HfGpt2Tokenizer.create([], name=str(tmp_path))
    (tmp_path / "vocab.bpe").write_bytes(b"#version: 0.2\n" + b"h e\n" * (1 << 20))
    with pytest.raises(UserError, match=r"vocab\.bpe is longer than 4,096 KiB"):  # 48 MiB of it took 3 GB
        HfGpt2Tokenizer.create([], name=str(tmp_path))


def test_openais_files_of_gpt2_give_tiktokens_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = DATA / "tiktoken_cache"
    if not cache.is_dir():
        pytest.skip(f"no {cache}: set SLM_TEST_DATA to a folder with tiktoken_cache/ (r50k_base)")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(cache))
    monkeypatch.setitem(sys.modules, "transformers", None)  # cannot be imported
    reference = tiktoken.get_encoding("r50k_base")
    write_gpt2_files(tmp_path, reference._mergeable_ranks, {"<|endoftext|>": reference.eot_token})
    tokenizer = HfGpt2Tokenizer.create([], name=str(tmp_path))
    assert (tokenizer.vocab_size, tokenizer.eos_id, tokenizer.pad_id) == (50257, 50256, None)
    for text in [*SAMPLES, Path(__file__).read_text(encoding="utf-8"), "x² ½ don't\r\n\t 12345  हिन्दी \u200d\xa0!"]:
        assert tokenizer.encode(text) == reference.encode_ordinary(text)
        assert tokenizer.decode(tokenizer.encode(text)) == text


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
