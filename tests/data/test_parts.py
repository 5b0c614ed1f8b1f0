"""Training, validation and test: by paths of their own, by names, by a size in bytes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from slm.data.config import CorpusConfig, HeldOut, Reading
from slm.data.corpora import code, datasets, text
from slm.data.documents.text import TextFile
from slm.data.faults import Faults
from slm.data.parts import InParts, part_of
from slm.data.store import scan, selection
from slm.data.store.data_card import CARD_FILE, README_FILE
from slm.data.store.find import find_store, prepare_store, tokenize_with
from slm.data.store.source_table import table_lines
from slm.data.store.token_store import TokenStore
from slm.errors import UserError
from slm.files.reading import read_json_object
from slm.tokenizers.byte import ByteTokenizer

DATA = Path(os.environ.get("SLM_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
CASES = DATA.parent / "cases" / "text"
BYTE = {"kind": "byte"}
PATTERNS = ["*.txt", "*.md", "*.train", "*.dev", "*.test", "*.raw"]


def write(root: Path, **texts: str) -> Path:
    """``write(root, train__a="x")`` writes `x` into the file ``train/a.txt``; a name with a dot stays as it is."""
    for name, content in texts.items():
        file = root / name.replace("__", "/")
        file = file if "." in file.name else file.with_suffix(".txt")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode())
    return root


@pytest.fixture
def store_of(tmp_path: Path) -> Callable[..., TokenStore]:
    """``store_of(path, val_bytes=3)``: the store that a command would make of the text."""

    def make(path: Path | list[str], **changes: Any) -> TokenStore:
        return find_store(corpus_of(path, tmp_path / "cache", **changes), BYTE)

    return make


def corpus_of(path: Path | list[str], cache: Path, **changes: Any) -> CorpusConfig:
    named = path if isinstance(path, list) else str(path)
    values = {"kind": "text", "cache_dir": str(cache), "path": named, "patterns": PATTERNS}
    return CorpusConfig.from_dict({**values, **changes})


def held(store: TokenStore, split: str) -> bytes:
    """The text of a split; an end of text is a zero byte."""
    return bytes(0 if token == 256 else token for token in np.asarray(store.tokens(split)).tolist())


@pytest.mark.parametrize(
    ("place", "part"),
    [
        ("train_10M/bnc_spoken.train", "train"),
        ("dev/bnc_spoken.dev", "val"),
        ("wiki.valid.tokens", "val"),
        ("wikitext-103-raw/wiki.test.raw", "test"),
        ("TinyStoriesV2-GPT4-train.txt", "train"),
        ("TinyStories-valid.txt", "val"),
        ("data/validation-00000-of-00002.parquet", "val"),
        ("Train/dev_notes.txt", "train"),
        ("train_test_split.md", ""),
        ("contest.txt", ""),
        ("tests/trainer.py", ""),
    ],
)
def test_names_that_say_a_part(place: str, part: str) -> None:
    assert part_of(Path(place)) == part


def test_parts_of_a_folder_are_known_by_name(tmp_path: Path) -> None:
    """Validation was trained on. Of a glob, too; what is of no part is told, what makes up the most is no by-work."""
    write(tmp_path / "d", train__a="x" * 90, dev__a="y", test__b="z", **{"README.md": "about"})
    for path in (tmp_path / "d", tmp_path / "d" / "**" / "*.*"):
        found: Any = text(str(path), PATTERNS, split_by_name=True)
        assert [file.name for file in found] == ["a.txt"]
        assert {part: [file.parent.name for file in of] for part, of in found.held.items()} == {
            "val": ["dev"], "test": ["test"],
        }  # fmt: skip
        (told,) = found.told
        for words in ("training 1 file(s), validation 1 file(s), test 1", "README.md", "data.split_by_name=false"):
            assert words in told
    assert len(text(str(tmp_path / "d"), PATTERNS)) == 4
    write(tmp_path / "d", book="w" * 500)
    whole: Any = text(str(tmp_path / "d"), PATTERNS, split_by_name=True)
    assert (len(whole), whole.held) == (5, {})
    assert "is read as one text, though names in it look like parts (dev/a.txt, test/b.txt)" in whole.told[0]


def test_one_name_alone_says_nothing(tmp_path: Path) -> None:
    """A folder of training files only, and a file that was named itself, are what they were; that some look like
    validation beside none of training is told."""
    write(tmp_path, train__a="x", train__b="y")
    plain: Any = text(str(tmp_path), PATTERNS, split_by_name=True)
    assert (len(plain), isinstance(plain, InParts)) == (2, False)
    write(tmp_path, dev__c="z")
    only: Any = text(str(tmp_path / "dev" / "c.txt"), PATTERNS, split_by_name=True)
    assert (len(only), isinstance(only, InParts)) == (1, False)
    (tmp_path / "train").rename(tmp_path / "books")
    told: Any = text(str(tmp_path), PATTERNS, split_by_name=True)
    assert (len(told), told.held, len(told.told)) == (3, {}, 1)


def test_paths_of_their_own(tmp_path: Path) -> None:
    """Such files are not trained on, wherever else they are named; a path beats a name."""
    write(tmp_path, a="a", b="b", c="c")
    every = [tmp_path / f"{name}.txt" for name in "abc"]
    found: Any = text(str(tmp_path), PATTERNS, str(every[1]), [str(every[2])])
    assert (list(found), found.held) == (every[:1], {"val": [every[1]], "test": [every[2]]})
    assert "2 file(s) of data.path are held out" in found.told[0]
    other: Any = code(str(tmp_path / "a.txt"), None, test_path=str(tmp_path / "b.txt"))
    assert (list(other), other.held) == ([every[0]], {"test": [every[1]]})
    write(tmp_path / "d", train="x" * 9, valid="y")
    named: Any = text(str(tmp_path / "d"), PATTERNS, str(every[0]), split_by_name=True)
    assert ([file.name for file in named], named.held) == (["train.txt"], {"val": [every[0]]})
    assert "1 file(s) named so are left out, since data.val_path names others" in named.told[1]
    with pytest.raises(UserError, match=r"\Adata.path: all of its files are held out"):
        text(str(every[0]), PATTERNS, str(every[0]))
    with pytest.raises(UserError, match=r"\Adata.test_path: there is no file or folder '[^']*gone'"):
        text(str(every[0]), PATTERNS, None, str(tmp_path / "gone"))


def test_each_part_is_a_split_of_the_store(store_of: Any, tmp_path: Path, capsys: Any) -> None:
    """Whole, to the byte, the single text of a part without an end; the files of all parts make the fingerprint."""
    write(tmp_path, a="training " * 9, b="more", v="naïve", t="test\n")
    paths = {"val_path": str(tmp_path / "v.txt"), "test_path": str(tmp_path / "t.txt")}
    first = store_of([str(tmp_path / "a.txt"), str(tmp_path / "b.txt")], **paths)
    assert [held(first, split) for split in ("train", "val", "test")] == [
        b"training " * 9 + b"\0more\0", "naïve".encode(), b"test\n",
    ]  # fmt: skip
    counts = {split: (first.meta[split]["documents"], first.meta[split]["bytes"]) for split in ("val", "test", "all")}
    assert counts == {"val": (1, 6), "test": (1, 5), "all": (4, 81 + 4 + 6 + 5)}
    assert first.token_bytes("test")(np.arange(5), np.asarray(first.tokens("test"))).sum() == 5
    single = store_of(tmp_path / "a.txt", **paths)
    assert held(single, "train") == b"training " * 9
    write(tmp_path, t="TEST\n")
    assert len({first.fingerprint, single.fingerprint, store_of(tmp_path / "a.txt", **paths).fingerprint}) == 3
    write(tmp_path, v="")
    with pytest.raises(UserError, match=r"\Adata.val_path: there is no text in '[^']*v.txt' \(empty documents: 1"):
        store_of(tmp_path / "a.txt", **paths)


def test_a_part_that_is_wanted_alone_is_read_alone(store_of: Any, tmp_path: Path) -> None:
    """To score a test file the training text is not tokenized."""
    write(tmp_path, a="training " * 9, v="v", t="test\n")
    own = {"test_path": str(tmp_path / "t.txt"), "val_path": str(tmp_path / "v.txt")}
    corpus = corpus_of(tmp_path / "a.txt", tmp_path / "cache", **own)
    for part, content in (("test", b"test\n"), ("val", b"v")):
        alone = tokenize_with(corpus, ByteTokenizer(), part)
        assert (held(alone, part), len(alone.tokens("train"))) == (content, 0)
    whole = tokenize_with(corpus, ByteTokenizer(), "all")
    assert whole.meta == find_store(corpus, BYTE).meta
    with pytest.raises(UserError, match=r"split=test: the data has no test part; [^\n]*data.test_path[^\n]*split=all"):
        tokenize_with(corpus_of(tmp_path / "a.txt", tmp_path / "cache"), ByteTokenizer(), "test")


@given(
    texts=st.text(alphabet="ab é🙂\n", min_size=12, max_size=60),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    span=st.integers(4, 30),
)
@settings(max_examples=40, deadline=None)
def test_bytes_from_the_end_of_a_single_text(texts: str, sizes: tuple[int, int], span: int) -> None:
    """enwik8's 90/5/5: put together the splits are the text, and each begins where it is asked to, or at the character
    that holds that place; whatever parts the text is read in."""
    raw, (val, test) = texts.encode(), sizes
    cuts = [raw[: len(raw) - n].decode(errors="ignore").encode() for n in (val + test, test)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TextFile, "span_bytes", span)
        patch.setattr(TextFile, "searched", 3)
        patch.setattr(scan, "UNIT_BYTES", 2 * span)
        got = divided(raw, HeldOut(val, test))
    assert got == {"train": cuts[0], "val": cuts[1][len(cuts[0]) :], "test": raw[len(cuts[1]) :]}


def divided(raw: bytes, held_out: HeldOut) -> dict[str, bytes]:
    """What `select` makes of a file, without a store."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a.txt"
        file.write_bytes(raw)
        units = scan.units_of([TextFile(file, "a.txt", Reading())])
        found = [b"".join(scan.record_of(document) for _, document in unit.read(Faults())) for unit in units]
        records = [np.frombuffer(one, scan.RECORD) for one in found]
        chosen = selection.select(records, selection.Filters(), 0.1, held_out).units
        parts = {"train": b"", "val": b"", "test": b""}
        for unit, of_unit in zip(units, chosen, strict=True):
            for split, document in of_unit.of(unit, Faults()):
                assert not document.ends
                parts[split] += document.text.encode()
        return parts


def test_bytes_of_several_texts_are_whole_ones(store_of: Any, tmp_path: Path) -> None:
    """About as many bytes; what is tested on is not what is validated on, and the share is of the rest."""
    folder = write(tmp_path / "d", **{f"d{i:02}": f"{i:02}" * 50 for i in range(40)})
    store = store_of(folder, val_bytes=500, test_bytes=1000)
    assert {split: store.meta[split]["documents"] for split in ("train", "val", "test")} == {
        "train": 25, "val": 5, "test": 10,
    }  # fmt: skip
    parts = [set(held(store, split).split(b"\0")) - {b""} for split in ("train", "val", "test")]
    assert len(set.union(*parts)) == 40
    tenth = store_of(folder, test_bytes=1000)
    assert [tenth.meta[split]["documents"] for split in ("val", "test")] == [3, 10]
    assert held(tenth, "test") == held(store, "test")
    for changes in ({"val_bytes": 4000}, {"val_bytes": 2000, "test_bytes": 2000}):
        with pytest.raises(UserError, match=r"of 4,000 bytes nothing is left to train on"):
            store_of(folder, **changes)


def test_a_size_beside_a_path_is_refused(store_of: Any, tmp_path: Path) -> None:
    write(tmp_path, a="a" * 50, t="t")
    for part in ("val", "test"):
        with pytest.raises(UserError, match=rf"\Adata.{part}_bytes: the \w+ part is known already"):
            store_of(tmp_path / "a.txt", **{f"{part}_path": str(tmp_path / "t.txt"), f"{part}_bytes": 3})
    mixed = store_of(tmp_path / "a.txt", val_path=str(tmp_path / "t.txt"), test_bytes=3)
    assert [held(mixed, split) for split in ("train", "val", "test")] == [b"a" * 47, b"t", b"aaa"]


def test_of_equal_texts_the_one_that_is_trained_on_goes(store_of: Any, tmp_path: Path) -> None:
    """A benchmark's test set stays whole, and is not learnt."""
    write(tmp_path, a="seen", b="other", t="seen", u="mine", v="seen")
    test, val = [str(tmp_path / "t.txt"), str(tmp_path / "u.txt")], str(tmp_path / "v.txt")
    store = store_of([str(tmp_path / f"{name}.txt") for name in "ab"], dedupe=True, test_path=test, val_path=val)
    assert [held(store, split) for split in ("train", "val", "test")] == [b"other", b"", b"seen\0mine\0"]


def test_the_table_has_a_row_a_source(tmp_path: Path) -> None:
    folder, own = write(tmp_path / "c", books__a="one two", books__b="one two", wiki__c="three"), {"v": "held out"}
    write(folder, **{"wiki/d.jsonl": '{"text": "x"}\n[]', "wiki/e.txt": "\0"})
    changes = {"patterns": [*PATTERNS, "*.jsonl"], "val_path": str(write(tmp_path, **own) / "v.txt")}
    corpus = corpus_of(folder, tmp_path, on_bad="skip", dedupe=True, **changes)
    store = prepare_store(corpus, BYTE, tmp_path / "store", 1)
    rows = read_json_object(store.folder / CARD_FILE)["table"]
    got = [(row["source"], row["part"], row["form"], row["files"], row["documents"], row["bytes"]) for row in rows]
    assert got == [
        ("books/", None, "text", 2, 1, 7),
        ("wiki/", None, "text", 2, 1, 5),
        ("wiki/d.jsonl", None, "jsonl", 1, 1, 1),
        ("v.txt", "val", "text", 1, 1, 8),
    ]
    left_out = [row["left_out"] for row in rows]
    assert left_out[0] == {"duplicates": 1}
    assert left_out[1] == {"NUL bytes": 1}
    assert (list(left_out[2].values()), left_out[3]) == ([1], {})
    title, books, *_ = table_lines(rows)
    assert title.split()[:5] == ["source", "form", "files", "documents", "bytes"]
    assert books.split() == ["books/", "text", "2", "1", "7", "duplicates:", "1"]
    assert books in (store.folder / README_FILE).read_text()


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., str]:
    """``saved(train=3, test=2)``: a DatasetDict of so many rows; of one number alone, a Dataset."""
    library = pytest.importorskip("datasets")
    library.disable_progress_bars()

    def save(rows: int | None = None, **splits: int) -> str:
        made = {name: [{"text": f"{name} {i}"} for i in range(n)] for name, n in splits.items()}
        whole = (
            library.Dataset.from_list([{"text": f"row {i}"} for i in range(rows)])
            if rows
            else library.DatasetDict({name: library.Dataset.from_list(of) for name, of in made.items()})
        )
        whole.save_to_disk(str(tmp_path / "saved"))
        return str(tmp_path / "saved")

    return save


def texts_of(source: Any) -> list[str]:
    return [document.text for span in source.spans() for document in source.read(span, Faults())]


def test_splits_of_a_saved_data_set(saved: Any) -> None:
    """A DatasetDict was read as its training split alone, a piece of it or a wrong name of a Dataset as all of it."""
    path = saved(train=4, validation=2, test=1, extra=3)
    found: Any = datasets(path, val_split="auto", test_split="auto")
    assert [[s.split for s in found], *([s.split for s in of] for of in found.held.values())] == [
        ["train"], ["validation"], ["test"],
    ]  # fmt: skip
    assert "validation 'validation', test 'test'" in found.told[0]
    assert type(datasets(path)) is list
    assert texts_of(datasets(path, split="train[1:2]+extra[2:]")[0].source(Reading())) == ["train 1", "extra 2"]
    for split in ("extra", "train+validation"):  # it is not training's, or has the other one in it
        other: Any = datasets(path, split=split, val_split="auto", test_split=None)
        assert "val" not in getattr(other, "held", {})
    given: Any = datasets(path, val_split="extra[:1]")
    assert texts_of(given.held["val"][0].source(Reading())) == ["extra 0"]


def test_a_split_of_a_saved_single_data_set(saved: Any) -> None:
    path = saved(10)
    assert len(texts_of(datasets(path)[0].source(Reading()))) == 10
    assert texts_of(datasets(path, split="train[:10%]")[0].source(Reading())) == ["row 0"]
    assert type(datasets(path, val_split="auto")) is list
    with pytest.raises(UserError, match=r"Unknown split \"nonsense\". Should be one of \['train'\]"):
        texts_of(datasets(path, split="nonsense")[0].source(Reading()))


@pytest.mark.skipif(not CASES.is_dir(), reason=f"{CASES} is not there")
@pytest.mark.parametrize(
    ("name", "train", "val", "test"),
    [
        ("babylm", "train_10M/*.train", "dev/*.dev", "test/*.test"),
        ("tinystories", "*-train.txt", "*-valid.txt", None),
        ("wikitext-103-raw", "*.train.raw", "*.valid.raw", "*.test.raw"),
    ],
)
def test_corpora_of_the_field(store_of: Any, name: str, train: str, val: str, test: str | None) -> None:
    """As they are published, by the patterns that there are as a rule; every byte is in its own part."""
    patterns = yaml.safe_load(files("slm.conf").joinpath("data/text.yaml").read_text())["patterns"]
    store = store_of(CASES / name, split_by_name=True, patterns=patterns, separator="none")
    for split, glob in (("train", train), ("val", val), ("test", test)):
        if glob is not None:
            sizes = [file.stat().st_size for file in (CASES / name).glob(glob)]
            assert (store.meta[split]["documents"], store.meta[split]["bytes"]) == (len(sizes), sum(sizes))
    assert ("test" in store.meta) == (test is not None)
