"""Token stores: what is written is what was said, whole or not at all, and made once."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_store import Split, write_store

from slm.data.documents.source import Document
from slm.data.store import shard
from slm.data.store.token_store import META_FILE, TokenStore, cached_store
from slm.errors import UserError
from slm.tokenizers.base import TOKENIZER_FILE
from slm.tokenizers.byte import ByteTokenizer
from slm.tokenizers.pieces import SimpleTokenizer

EOS = ByteTokenizer.eos_id
BOS = ByteTokenizer.pad_id


class Begun(ByteTokenizer):
    """Two ids stand before every text."""

    begin_ids = (BOS, 0)


def documents(*texts: str) -> list[Document]:
    return [Document(f"{i}.txt", text) for i, text in enumerate(texts)]


SPLIT = Split(documents("naïve", "日本 🙂"), documents("the cat sat"))


def parts(*texts: str, name: str = "long.txt", later: bool = False) -> list[Document]:
    return [Document(name, text, begins=i == 0 and not later, ends=False) for i, text in enumerate(texts)]


@pytest.fixture
def store(tmp_path: Path) -> TokenStore:
    return write_store(tmp_path / "made" / "store", SPLIT, ByteTokenizer())


texts = st.lists(st.text(max_size=20), min_size=1, max_size=6)


@given(train=texts, val=texts, batch=st.sampled_from([1, 7, 1 << 20]))
@settings(max_examples=40, deadline=None)
def test_the_tokens_of_each_document_and_an_end_of_text(
    tmp_path_factory: pytest.TempPathFactory, train: list[str], val: list[str], batch: int
) -> None:
    """However many documents the tokenizer is given at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard, "_BATCH_CHARACTERS", batch)
        split = Split(documents(*train), documents(*val))
        made = write_store(tmp_path_factory.mktemp("stores") / "store", split, Begun())
    for name, written in (("train", train), ("val", val)):
        expected = [i for text in written for i in (BOS, 0, *text.encode(), EOS)]
        assert np.asarray(made.tokens(name)).tolist() == expected
        assert made.meta[name]["tokens"] == len(expected)


def test_a_part_has_no_end_and_only_the_first_one_a_beginning(tmp_path: Path) -> None:
    """No text ends at the cut between training and validation, and none begins there."""
    split = Split(
        [*parts("ab", "c"), *documents("d"), *parts("e", name="other")], [*parts("f", later=True), *documents("g")]
    )
    made = write_store(tmp_path / "store", split, Begun())
    assert np.asarray(made.tokens("train")).tolist() == [BOS, 0, *b"abc", BOS, 0, *b"d", EOS, BOS, 0, *b"e"]
    assert np.asarray(made.tokens("val")).tolist() == [*b"f", BOS, 0, *b"g", EOS]


def test_meta_counts_what_was_read_and_written(store: TokenStore) -> None:
    """Bytes are those of the text: what bits per byte are counted by."""
    tokens = np.array([*"naïve".encode(), EOS, *"日本 🙂".encode(), EOS], dtype="<u2")
    digest = hashlib.sha256(tokens.tobytes()).hexdigest()
    assert store.meta["train"] == {
        "tokens": 19,
        "bytes": 17,
        "documents": 2,
        "sha256": digest,
        "shards": [{"file": "train_00000.bin", "tokens": 19, "others": 0, "sha256": digest}],
    }
    assert (store.folder / "train_00000.bin").read_bytes() == tokens.tobytes()
    assert {k: store.meta["val"][k] for k in ("tokens", "bytes", "documents")} == {
        "tokens": 12, "bytes": 11, "documents": 1,
    }  # fmt: skip
    assert store.token_bytes("train")(np.arange(19), tokens).tolist() == [1] * 6 + [0] + [1] * 11 + [0]
    assert store.meta["vocab_size"] == 258
    assert store.meta["tokenizer"] == {"kind": "byte", "fingerprint": ByteTokenizer().fingerprint}


def test_bytes_are_the_texts_whatever_an_id_stands_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Unknown characters have their own, over several shards; what stands before a text has none. A store of format 2,
    which did not note them, is read, and gives those of its text as a whole."""
    tokenizer = SimpleTokenizer(list("abc"))
    split = Split(documents("aüb", "日c🙂"), documents("c", "ééa"))
    made = write_store(tmp_path / "store", split, tokenizer, documents_a_shard=1)
    assert made.meta["train"]["shards"][1]["others"] == 2
    expected = {"train": [1, 2, 1, 0, 3, 1, 4, 0], "val": [1, 0, 2, 2, 1, 0]}
    for name, sizes in expected.items():
        where = np.arange(len(sizes))[::-1]
        assert made.token_bytes(name)(where, made.tokens(name)[where]).tolist() == sizes[::-1]
    begun = write_store(tmp_path / "begun", Split(documents("a"), documents("b")), Begun())
    assert begun.token_bytes("train")(np.arange(4), begun.tokens("train")).tolist() == [0, 0, 1, 0]

    meta = json.loads((made.folder / META_FILE).read_text())
    for name in expected:
        for shard_meta in meta[name]["shards"]:
            shard_meta.pop("others")
    (made.folder / META_FILE).write_text(json.dumps({**meta, "format": 2}))
    older = TokenStore.open(made.folder)
    found = older.token_bytes("val")(np.arange(6), older.tokens("val")[np.arange(6)])
    assert found.sum() == pytest.approx(6)
    assert "bits per byte are estimates; prepare it again" in capsys.readouterr().err


def test_what_is_opened_is_what_was_written(store: TokenStore) -> None:
    opened = TokenStore.open(store.folder)
    assert (opened.folder, opened.meta, opened.fingerprint) == (store.folder, store.meta, store.fingerprint)
    assert opened.tokenizer.decode(opened.tokens("val")) == "the cat sat"
    (mapped,) = opened.tokens("train").shards
    assert isinstance(mapped, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        mapped[0] = 1
    assert {file.name for file in store.folder.iterdir()} == {
        "train_00000.bin",
        "val_00000.bin",
        META_FILE,
        TOKENIZER_FILE,
    }
    assert store.folder.stat().st_mode & 0o777 == 0o755, "a store may be shared: it is made in a folder of mode 700"


@pytest.mark.parametrize(("vocab_size", "dtype"), [(1 << 16, "uint16"), ((1 << 16) + 1, "uint32")])
def test_two_bytes_a_token_while_all_ids_fit(tmp_path: Path, vocab_size: int, dtype: str) -> None:
    class Wide(ByteTokenizer):
        def encode(self, text: str) -> list[int]:
            return [0, self.vocab_size - 1]

    Wide.vocab_size = vocab_size
    made = write_store(tmp_path / "store", SPLIT, Wide())
    assert made.meta["dtype"] == made.tokens("val").dtype.name == dtype
    assert np.asarray(made.tokens("val")).tolist() == [0, vocab_size - 1, EOS]


def test_the_fingerprint_is_that_of_text_cut_and_tokenizer(tmp_path: Path) -> None:
    """Whatever a resumed run would read otherwise changes it; where the store lies, and file names, do not."""
    tokenizer = SimpleTokenizer(["a", "b"])
    variants = {
        "same": (Split(documents("ab", "ba"), documents("ab")), tokenizer),
        "train": (Split(documents("ab", "bb"), documents("ab")), tokenizer),
        "val": (Split(documents("ab", "ba"), documents("aa")), tokenizer),
        "order": (Split(documents("ba", "ab"), documents("ab")), tokenizer),
        "joined": (Split(documents("abba"), documents("ab")), tokenizer),
        "cut": (Split(documents("ab"), documents("ba", "ab")), tokenizer),
        "vocabulary": (Split(documents("ab", "ba"), documents("ab")), SimpleTokenizer(["a", "b", "c"])),
    }
    found = {name: write_store(tmp_path / name, *of).fingerprint for name, of in variants.items()}
    assert len(set(found.values())) == len(variants)
    renamed = [Document(f"other/{document.name}", document.text) for document in documents("ab", "ba")]
    assert write_store(tmp_path / "again", Split(renamed, documents("ab")), tokenizer).fingerprint == found["same"]


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def of_format_0(file: Path) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 0}))


def without_val(file: Path) -> None:
    file.write_text(json.dumps({key: value for key, value in json.loads(file.read_text()).items() if key != "val"}))


DAMAGE: dict[str, tuple[str, Any, str]] = {
    "train cut": (
        "train_00000.bin",
        cut_short,
        r"train_00000\.bin has 37 bytes, expected 38; delete the folder and",
    ),
    "val cut": ("val_00000.bin", cut_short, r"val_00000\.bin has 23 bytes, expected 24; delete"),
    "val longer": (
        "val_00000.bin",
        lambda file: file.write_bytes(bytes(26)),
        r"val_00000\.bin has 26 bytes, expected 24; delete",
    ),
    "val gone": ("val_00000.bin", Path.unlink, r"val_00000\.bin has 0 bytes, expected 24; delete"),
    "meta cut": (META_FILE, cut_short, r"meta\.json is damaged \([^\n]*\); fetch or make it again"),
    "meta of zeros": (META_FILE, lambda file: file.write_bytes(bytes(99)), r"meta\.json is damaged"),
    "meta gone": (META_FILE, Path.unlink, r"is no token store \(meta\.json is missing\); make one: slm-prepare"),
    "meta of something else": (META_FILE, lambda file: file.write_text("[]"), r"meta\.json is damaged \(it holds no"),
    "meta without a split": (META_FILE, without_val, r"meta\.json is damaged \(val is missing\); delete the folder"),
    "another format": (META_FILE, of_format_0, r"has token store format 0, expected 3; prepare again"),
    "tokenizer gone": (TOKENIZER_FILE, Path.unlink, r"slm_tokenizer\.json is missing"),
    "tokenizer cut": (TOKENIZER_FILE, cut_short, r"slm_tokenizer\.json is damaged"),
}


@pytest.mark.parametrize(("name", "damage", "said"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_store_is_refused_and_in_the_cache_made_again(
    store: TokenStore, name: str, damage: Any, said: str
) -> None:
    """A power cut, a full disk, an older version: nothing is trained on what is left."""
    damage(store.folder / name)
    with pytest.raises(UserError, match=rf"\A[^\n]*{said}[^\n]*\Z"):
        TokenStore.open(store.folder)
    again = cached_store(store.folder, lambda folder: write_store(folder, SPLIT, ByteTokenizer()))
    assert again.meta == store.meta
    assert np.asarray(again.tokens("train")).tolist() == [*"naïve".encode(), EOS, *"日本 🙂".encode(), EOS]


def test_a_file_is_no_token_store(tmp_path: Path) -> None:
    """``slm-train data=prepared data.path=words.txt``, where data=text was meant: a page of traceback."""
    (tmp_path / "words.txt").write_text("words")
    with pytest.raises(UserError, match=r"words\.txt' is no token store"):
        TokenStore.open(tmp_path / "words.txt")


@pytest.mark.parametrize("meta", ['{"format": 2}', "[]", "{}", "[" * 10**5])
def test_a_meta_file_of_something_else_is_refused(store: TokenStore, meta: str) -> None:
    (store.folder / META_FILE).write_text(meta)
    with pytest.raises(UserError, match=r"meta\.json is damaged[^\n]*\Z"):
        TokenStore.open(store.folder)


def test_a_failure_leaves_the_cache_free_for_the_next(tmp_path: Path) -> None:
    def fail(folder: Path) -> TokenStore:
        raise UserError("no text")

    with pytest.raises(UserError, match="no text"):
        cached_store(tmp_path / "store", fail)
    assert cached_store(tmp_path / "store", lambda place: write_store(place, SPLIT, ByteTokenizer())).meta["train"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
@pytest.mark.parametrize("damaged", [False, True])
def test_processes_that_want_one_store_make_it_once(tmp_path: Path, damaged: bool) -> None:
    """As the ranks of a run do, and the runs of a sweep."""
    folder, log = tmp_path / "cache" / "store", tmp_path / "made.log"
    if damaged:
        cut_short(write_store(folder, SPLIT, ByteTokenizer()).folder / "val_00000.bin")
    context = multiprocessing.get_context("fork")
    together = context.Barrier(3)

    def make(place: Path) -> TokenStore:
        with log.open("a") as lines:
            lines.write("made\n")
        time.sleep(0.05)
        return write_store(place, SPLIT, ByteTokenizer())

    def want() -> None:
        together.wait(timeout=30)
        assert cached_store(folder, make).meta["val"]["tokens"] == 12

    processes = [context.Process(target=want) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=30)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert log.read_text() == "made\n"
