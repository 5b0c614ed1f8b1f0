"""Files to documents, documents to two parts: nothing lost, nothing in both, the same on every machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_store import split_documents

from slm.data.config import CorpusConfig, Reading
from slm.data.documents.source import Document, file_sources
from slm.data.faults import Faults
from slm.data.parts import InParts
from slm.data.store.preparation import Preparation
from slm.data.store.processes import Processes
from slm.errors import UserError

MANY = settings(max_examples=200, deadline=None)
fractions = st.floats(0.01, 0.99)


def written(folder: Path, **texts: str | bytes) -> list[Path]:
    """A ``.txt`` file for each of `texts`; ``__`` in a name stands for a folder."""
    files = []
    for name, text in texts.items():
        file = folder / f"{name.replace('__', '/')}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        files.append(file)
    return files


def read_documents(files: list[Path]) -> list[Document]:
    faults = Faults()
    return [
        document
        for source in file_sources(files, Reading())
        for span in source.spans()
        for document in source.read(span, faults)
    ]


def refused(files: list[Path]) -> str:
    with pytest.raises(UserError) as caught:
        read_documents(files)
    message = str(caught.value)
    assert message.startswith("data.path: ")
    assert "\n" not in message
    return message


def scan_refused(files: list[Path], folder: Path) -> str:
    corpus = CorpusConfig.from_dict({"kind": "text", "cache_dir": "x", "path": "x", "patterns": ["*"]})
    with Processes(1) as processes, pytest.raises(UserError) as caught:
        Preparation(corpus, InParts(file_sources(files, Reading()), {}), processes).scan(folder)
    return str(caught.value)


def test_text_comes_as_it_lies_in_the_file(tmp_path: Path) -> None:
    """Line ends too: a model that is to write them must see them. Only a byte-order mark is not text."""
    text = "naïve\r\n日本 🙂\r\x0c\ufeff \n"
    files = written(tmp_path, plain=text, marked=b"\xef\xbb\xbf" + text.encode())
    assert [document.text for document in read_documents(files)] == [text, text]


def test_names_are_the_same_wherever_the_corpus_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The split follows from them: an absolute path would hold out other documents on another machine."""
    texts = {"a": "1", "sub__b": "2", "sub__deep__c": "3"}
    here, there = (written(tmp_path / place, **texts) for place in ("here", "there/deeper"))
    monkeypatch.chdir(tmp_path)
    relative = [file.relative_to(tmp_path) for file in here]
    expected = [Document("a.txt", "1"), Document("sub/b.txt", "2"), Document("sub/deep/c.txt", "3")]
    assert read_documents(here) == read_documents(there) == read_documents(relative) == expected
    assert read_documents(here[::-1]) == expected[::-1]
    assert read_documents(here[2:]) == [Document("c.txt", "3")]


def test_a_link_out_of_the_corpus_leaves_the_names_as_they_are(tmp_path: Path) -> None:
    """Debian's standard library has one (sitecustomize.py, to /etc): every name begins at / there."""
    (target,) = written(tmp_path, elsewhere="2")
    here, there = (written(tmp_path / place, a="1", b="") for place in ("here", "there/deeper"))
    for _, link in (here, there):
        link.unlink()
        link.symlink_to(target)
    for files in (here, there):
        assert [d.name for d in read_documents(files)] == ["a.txt", "b.txt"]


def test_empty_files_are_passed_over_unless_all_are(tmp_path: Path) -> None:
    files = written(tmp_path, a="", b="text", c=b"\xef\xbb\xbf")
    assert read_documents(files) == [Document("b.txt", "text")]
    assert scan_refused([files[0], files[2]], tmp_path / "both") == (
        f"data.path: there is no text in '{files[0]}' and 1 more (empty documents: 2 (a.txt, c.txt))"
    )
    one = f"data.path: there is no text in '{files[0]}' (empty documents: 1 (a.txt))"
    assert scan_refused(files[:1], tmp_path / "one") == one


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"text\0text", "is binary, not text (it holds NUL bytes); leave it out"),
        ("text".encode("utf-16"), "is binary, not text"),
        ("café".encode("latin-1"), "is not UTF-8 text (byte 0xe9 at offset 3); name its encoding"),
        (b"\xef\xbb\xbf" + b"caf\xe9", "is not UTF-8 text (byte 0xe9 at offset 6)"),
        (b"half a character \xe6\x97", "is not UTF-8 text (byte 0xe6 at offset 17)"),
    ],
    ids=["NUL", "UTF-16", "Latin-1", "after a mark", "cut off"],
)
def test_what_is_no_text_is_named_in_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    """The offset is that in the file, so that ``xxd -s`` shows the byte."""
    good, bad = written(tmp_path, good="text", bad=content)
    assert f"'{bad}' {said}" in refused([good, bad])


def test_what_cannot_be_read_is_named_in_one_line(tmp_path: Path) -> None:
    assert f"cannot read '{tmp_path / 'gone.txt'}' (No such file" in refused([tmp_path / "gone.txt"])


def several(lengths: list[int]) -> list[Document]:
    return [Document(f"folder/{i}.txt", chr(ord("a") + i % 26) * length) for i, length in enumerate(lengths)]


@given(lengths=st.lists(st.integers(1, 300), min_size=2, max_size=30), fraction=fractions, data=st.data())
@MANY
def test_whole_documents_are_held_out(lengths: list[int], fraction: float, data: st.DataObject) -> None:
    """Each is in one part, in the order they came in, and which follows from the names, not from that order."""
    documents = several(lengths)
    split = split_documents(documents, fraction)
    assert split.train
    assert split.val
    assert split.train == [document for document in documents if document not in split.val]
    assert len(split.train) + len(split.val) == len(documents)
    held_out = sum(len(document.text) for document in split.val)
    assert abs(held_out - fraction * sum(lengths)) <= max(lengths)
    moved = split_documents(data.draw(st.permutations(documents)), fraction)
    assert {document.name for document in moved.val} == {document.name for document in split.val}


def test_of_many_documents_the_fraction_is_met() -> None:
    """To the nearest whole document."""
    for fraction in (0.02, 0.194, 0.206, 0.5, 0.97):
        assert len(split_documents(several([10] * 100), fraction).val) == round(100 * fraction)


def test_which_documents_are_held_out_never_changes() -> None:
    """A run that is resumed by a later version, or in another process (where `hash` of a string is another),
    would else be refused, or be validated on what it was trained on."""
    alike = split_documents(several([10] * 20), 0.25).val
    assert [document.name for document in alike] == [f"folder/{i}.txt" for i in (1, 3, 7, 13, 15)]
    mixed = split_documents(several([60, 10] * 10), 0.1).val
    assert [document.name for document in mixed] == [f"folder/{i}.txt" for i in (1, 3, 7, 13, 15)]


def test_a_new_file_moves_few_others() -> None:
    documents = several([10] * 200)
    before = {document.name for document in split_documents(documents, 0.3).val}
    after = {document.name for document in split_documents([Document("0.txt", "new " * 3), *documents], 0.3).val}
    assert len(before ^ after) <= 3


@given(text=st.text(min_size=1, max_size=200), fraction=fractions)
@MANY
def test_of_a_single_document_its_last_part_is_held_out(text: str, fraction: float) -> None:
    document = Document("a.txt", text)
    if len(text) * fraction >= 1 and len(text) * (1 - fraction) >= 1:
        (train,), (val,) = (split := split_documents([document], fraction)).train, split.val
        assert train.text + val.text == text
        assert abs(len(val.text) - fraction * len(text)) <= 1
        assert (train.name, train.ends, val.name, val.begins) == ("a.txt", False, "a.txt", False)
    elif len(text) == 1:
        with pytest.raises(UserError, match=r"\Adata: the only document has 1 characters, too few to hold out"):
            split_documents([document], fraction)


def test_too_short_to_be_split_is_said_in_one_line() -> None:
    with pytest.raises(UserError) as caught:
        split_documents([Document("a.txt", "a" * 99)], 0.995)
    assert str(caught.value) == (
        "data: the only document has 99 characters, too few to hold out a fraction of 0.995 for validation; "
        "give more text or another data.val_fraction"
    )
