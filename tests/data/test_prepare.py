"""From settings to a token store: made once, and made again when anything it was made of has changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from tokenizers import models, pre_tokenizers

from slm.data.config import CorpusConfig
from slm.data.store.find import find_store, prepare_store, tokenize_with
from slm.data.store.preparation import Preparation
from slm.data.store.token_store import TokenStore
from slm.errors import UserError
from slm.tokenizers.byte import ByteTokenizer
from slm.tokenizers.pieces import SimpleTokenizer

BYTE = {"kind": "byte"}
TEXT = "the cat sat on the mat; " * 8


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of two text files and one that is no text."""
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "a.txt").write_text(TEXT)
    (folder / "b.txt").write_text(TEXT.upper())
    (folder / "c.bin").write_bytes(bytes(9))
    return folder


@pytest.fixture
def corpus(root: Path) -> Callable[..., CorpusConfig]:
    """``corpus(val_fraction=0.5)``: the folder `root` with changes."""

    def of(path: Path | list[str] = root, patterns: str = "*.txt", val_fraction: float = 0.1) -> CorpusConfig:
        settings = {"path": path if isinstance(path, list) else str(path), "patterns": [patterns]}
        return CorpusConfig("text", str(root.parent / "cache"), val_fraction, settings)

    return of


@pytest.fixture
def no_reading(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Called, makes an error of reading or tokenizing any text from there on."""

    def forbid() -> None:
        monkeypatch.delattr(Preparation, "make")

    return forbid


def rewrite(file: Path, text: str, later_by_s: int = 1) -> None:
    """As an editor would, however coarse the file system's clock is; 0 keeps the date, as copying can."""
    when = file.stat().st_mtime_ns + later_by_s * 10**9
    file.write_text(text)
    os.utime(file, ns=(when, when))


def test_the_same_settings_find_the_store_again_without_reading(corpus: Any, no_reading: Any) -> None:
    first = find_store(corpus(), {"kind": "bpe", "vocab_size": 260, "min_frequency": 2})
    no_reading()
    again = find_store(corpus(), {"min_frequency": 2, "vocab_size": 260, "kind": "bpe"})
    assert (again.folder, again.fingerprint) == (first.folder, first.fingerprint)


def test_what_the_text_is_made_of_is_noticed(corpus: Any, root: Path) -> None:
    """Each change gives a store of its own, also where size, name and date, or place and date, are the same;
    taken back, the settings find their old one."""
    found = [find_store(corpus(), BYTE)]
    found += [find_store(corpus(root / "a.txt", val_fraction=fraction), BYTE) for fraction in (0.1, 0.2)]
    rewrite(root / "a.txt", TEXT.replace("cat", "dog"))  # of the same length
    found.append(find_store(corpus(), BYTE))
    (root / "new.txt").write_text(TEXT)
    found.append(find_store(corpus(), BYTE))
    other = root.parent / "other"
    shutil.copytree(root, other)
    rewrite(other / "b.txt", TEXT, later_by_s=0)
    found.append(find_store(corpus(other), BYTE))
    rewrite(other / "b.txt", TEXT * 2, later_by_s=0)
    found.append(find_store(corpus(other), BYTE))
    assert len({store.folder for store in found}) == len({store.fingerprint for store in found}) == len(found)
    (root / "new.txt").unlink()
    assert find_store(corpus(), BYTE).folder == found[3].folder
    assert "dog" in ByteTokenizer().decode([*found[3].tokens("train"), *found[3].tokens("val")])


def test_what_the_tokenizer_is_made_of_is_noticed(corpus: Any, tmp_path: Path) -> None:
    """Its kind, its settings, and the content of a file that a setting names."""

    def save_words(words: list[str]) -> None:
        vocabulary = {word: i for i, word in enumerate(["<eos>", "<unk>", *words])}
        backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
        backend.pre_tokenizer = pre_tokenizers.Whitespace()
        backend.add_special_tokens(["<eos>"])
        backend.save(str(tmp_path / "words.json"))

    given = {"kind": "hf_gpt2", "name": str(tmp_path / "words.json"), "eos_token": "<eos>"}
    save_words(["the", "cat"])
    found = [find_store(corpus(), given)]
    save_words(["the", "cat", "sat"])
    found.append(find_store(corpus(), given))
    assert [store.meta["vocab_size"] for store in found] == [4, 5]
    found += [find_store(corpus(), {"kind": "bpe", "vocab_size": size}) for size in (259, 260)]
    found.append(find_store(corpus(), BYTE))
    assert len({store.folder for store in found}) == len({store.fingerprint for store in found}) == len(found)


def test_a_vocabulary_is_fitted_on_the_training_part_alone(corpus: Any, root: Path) -> None:
    """Characters that only validation has would else be known to a model that never saw one."""
    (root / "a.txt").write_text("ab" * 45 + "z" * 10)
    store = find_store(corpus(root / "a.txt"), {"kind": "simple"})
    assert store.meta["vocab_size"] == 3 + 2
    assert np.asarray(store.tokens("val")).tolist() == [store.tokenizer.unk_id] * 10


def test_a_store_lies_where_it_is_asked_for_and_says_what_find_store_says(corpus: Any, tmp_path: Path) -> None:
    """`slm-prepare` ahead, the cache, and an existing tokenizer over the same text: three ways to the same tokens."""
    found = find_store(corpus(), {"kind": "simple"})
    assert found.folder.parent == tmp_path / "cache" / "token_stores"
    made = prepare_store(corpus(), {"kind": "simple"}, tmp_path / "ahead")
    again = tokenize_with(corpus(), found.tokenizer)
    assert made.folder == tmp_path / "ahead"
    assert made.meta == again.meta == found.meta


def test_tokenize_with_goes_by_the_text_itself(corpus: Any, root: Path, no_reading: Any) -> None:
    """Same content, same store; other content, tokenizer or cut, another: dates and sizes do not count here."""
    tokenizer = ByteTokenizer()
    found = [tokenize_with(corpus(), tokenizer)]
    assert np.asarray(found[0].tokens("val")).tolist() in ([*TEXT.encode(), 256], [*TEXT.upper().encode(), 256])
    found.append(tokenize_with(corpus(), SimpleTokenizer.create([TEXT])))
    found.append(tokenize_with(corpus(root / "a.txt", val_fraction=0.3), tokenizer))
    found.append(tokenize_with(corpus(root / "a.txt", val_fraction=0.5), tokenizer))
    rewrite(root / "a.txt", TEXT.replace("cat", "dog"), later_by_s=0)
    found.append(tokenize_with(corpus(), tokenizer))
    assert len({store.folder for store in found}) == len({store.fingerprint for store in found}) == len(found)
    (root / "a.txt").write_text(TEXT)
    inode = (found[0].folder / "meta.json").stat().st_ino
    assert tokenize_with(corpus(), tokenizer).folder == found[0].folder
    assert (found[0].folder / "meta.json").stat().st_ino == inode, "made again"


def test_a_prepared_store_is_taken_as_it_is(corpus: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = prepare_store(corpus(), {"kind": "simple"}, tmp_path / "store")
    monkeypatch.setenv("HOME", str(tmp_path))
    prepared = CorpusConfig("prepared", "cache", settings={"path": "~/store"})
    assert find_store(prepared, BYTE).meta == tokenize_with(prepared, made.tokenizer).meta == made.meta


def test_a_prepared_store_of_another_tokenizer_is_refused(corpus: Any, tmp_path: Path) -> None:
    """Its ids mean other texts: a model scored on them would look merely bad."""
    prepare_store(corpus(), {"kind": "simple"}, tmp_path / "store")
    prepared = CorpusConfig("prepared", "cache", settings={"path": str(tmp_path / "store")})
    with pytest.raises(UserError) as caught:
        tokenize_with(prepared, ByteTokenizer())
    assert str(caught.value) == (
        f"the token store '{tmp_path / 'store'}' was made with another tokenizer than the model's; "
        "give the text itself (data=text data.path=…)"
    )
    missing = CorpusConfig("prepared", "cache", settings={"path": str(tmp_path / "gone")})
    for find in (lambda: find_store(missing, BYTE), lambda: tokenize_with(missing, ByteTokenizer())):
        with pytest.raises(UserError, match=r"\A'[^\n]*gone' is no token store [^\n]*slm-prepare\Z"):
            find()


def test_text_that_cannot_be_used_leaves_no_store(corpus: Any, root: Path) -> None:
    with pytest.raises(UserError, match="is binary"):
        find_store(corpus(patterns="*"), BYTE)
    with pytest.raises(UserError, match="none 999 times"):
        find_store(corpus(), {"kind": "regex", "min_frequency": 999})
    left = [entry for entry in (root.parent / "cache" / "token_stores").iterdir() if entry.suffix != ".lock"]
    assert left == []


def test_one_file_by_two_names_is_one_document(corpus: Any, root: Path) -> None:
    """``data.path=[a.txt,/home/me/a.txt]``: nothing is left to train on, and slm-train divides by zero."""
    once = find_store(corpus(root / "a.txt"), BYTE)
    (root / "link.txt").symlink_to(root / "a.txt")
    for other in (root / ".." / "text" / "a.txt", root / "link.txt"):
        twice = corpus([str(root / "a.txt"), str(other)])
        store: TokenStore = find_store(twice, BYTE)
        assert store.fingerprint == once.fingerprint
        assert tokenize_with(twice, ByteTokenizer()).fingerprint == once.fingerprint


def test_a_prepared_store_without_a_place_is_refused() -> None:
    """The empty path is the current folder to pathlib."""
    for find in (lambda c: find_store(c, BYTE), lambda c: tokenize_with(c, ByteTokenizer())):
        with pytest.raises(UserError, match=r"\Adata\.path is empty; give the folder that slm-prepare made\Z"):
            find(CorpusConfig("prepared", "cache", settings={"path": ""}))
