"""The index of a TensorFlow checkpoint is read before TensorFlow does, whose own reader ends the process."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tf_table_writer import block_of, signed, table, varint

from slm.weights.tf_index import read_index
from slm.weights.tf_table import table_entries

Save = Callable[[Path, Mapping[str, Any]], None]
INDEX, DATA = "model.ckpt.index", "model.ckpt.data-00000-of-00001"


@pytest.fixture
def prefix(save_tf_checkpoint: Save, tmp_path: Path) -> Path:
    """Of a checkpoint with two variables."""
    save_tf_checkpoint(tmp_path, {"a": np.ones(3, np.float32), "b": np.ones((2, 4), np.float64)})
    return tmp_path / "model.ckpt"


def test_a_table_is_what_was_written(tmp_path: Path) -> None:
    """Several blocks too, which TensorFlow writes from 256 KiB on."""
    entries = [(b"%04d" % i, bytes(i)) for i in range(300)]
    (tmp_path / INDEX).write_bytes(table(entries[:100], entries[100:101], entries[101:]))
    assert list(table_entries(tmp_path / INDEX)) == entries


def test_the_index_says_what_was_saved(prefix: Path) -> None:
    assert {name: one.shape for name, one in read_index(prefix).items()} == {"a": (3,), "b": (2, 4)}
    content = prefix.with_name(INDEX).read_bytes()
    assert signed(content) == content
    (header, *entries) = table_entries(prefix.with_name(INDEX))
    prefix.with_name(INDEX).write_bytes(table([header, entries[0]], entries[1:]))
    assert list(read_index(prefix)) == ["a", "b"]


def dims(*sizes: int) -> Callable[[Any], object]:
    def change(entry: Any) -> None:
        del entry.shape.dim[:]
        for size in sizes:
            entry.shape.dim.add(size=size)

    return change


def slices(entry: Any) -> None:
    for _ in range(2):
        entry.slices.add().extent.add(start=0, length=1)


WRONG_ENTRIES: dict[str, tuple[Callable[[Any], object], str]] = {
    "a dimension below zero": (dims(-1, 4), "the smallest -1"),
    "more elements than can be counted": (dims(2**62, 2**62), "no weight has"),
    "the same, hidden by a zero": (dims(2**62, 2**62, 0), "no weight has"),
    "three hundred dimensions": (dims(*[1] * 300), "300 dimensions"),
    "a slice given twice": (slices, "in slices"),
    "no shape": (lambda entry: setattr(entry.shape, "unknown_rank", True), "no known shape"),
    "before the data": (lambda entry: setattr(entry, "offset", -1), "beyond the end"),
    "behind the data": (lambda entry: setattr(entry, "offset", 2**62), "beyond the end"),
    "longer than the data": (lambda entry: setattr(entry, "size", 2**33), "beyond the end"),
    "of another file": (lambda entry: setattr(entry, "shard_id", 5), "data-00005-of-00001 is missing"),
}


@pytest.mark.parametrize(("change", "words"), WRONG_ENTRIES.values(), ids=WRONG_ENTRIES)
def test_a_wrong_entry_is_refused(prefix: Path, change: Callable[[Any], object], words: str) -> None:
    """The first five ended the process in TensorFlow 2.21 (``Check failed: …``); a size of 8 GiB was allocated."""
    from tensorflow.core.protobuf.tensor_bundle_pb2 import BundleEntryProto

    (*before, (name, value)) = table_entries(prefix.with_name(INDEX))
    entry = BundleEntryProto.FromString(value)
    change(entry)
    prefix.with_name(INDEX).write_bytes(table([*before, (name, entry.SerializeToString())]))
    with pytest.raises(ValueError, match=words):
        read_index(prefix)


def test_an_entry_that_does_not_parse_is_refused(prefix: Path) -> None:
    """It ended the process too; without a header TensorFlow left out the first variable."""
    (header, (name, _), last) = table_entries(prefix.with_name(INDEX))
    for entries, words in (
        ([header, (name, b"\xff\xff"), last], "the entry of 'a' does not parse"),
        ([(b"", b"\xff\xff"), last], "the header does not parse"),
        ([(name, header[1]), last], "has no header"),
        ([header, (b"\xff", last[1])], "can't decode"),
    ):
        prefix.with_name(INDEX).write_bytes(table(entries))
        with pytest.raises(ValueError, match=words):
            read_index(prefix)


ONE, TWO = (b"a", b"1"), (b"b", b"2")
BLOCK = block_of([ONE])


def footed(content: bytes, start: int, size: int) -> bytes:
    """`content` with a footer that says where its index block is."""
    return content + (b"\0\0" + varint(start) + varint(size)).ljust(40, b"\0") + table([ONE])[-8:]


def pointing(*places: tuple[int, int], block: bytes = BLOCK) -> bytes:
    """A block, and an index block that says that blocks lie at these places."""
    index = block_of([(b"%d" % i, varint(start) + varint(size)) for i, (start, size) in enumerate(places)])
    content = block + b"\0" + bytes(4)
    return signed(footed(content + index + b"\0" + bytes(4), len(content), len(index)))


WRONG_TABLES: dict[str, tuple[bytes, str]] = {
    "an index block of a tebibyte": (footed(bytes(60), 0, 2**40), "beyond the end"),
    "a block of a tebibyte": (pointing((0, 2**40)), "beyond the end"),
    "a block far away": (pointing((2**63, 5)), "beyond the end"),
    "a block within the footer": (pointing((0, len(pointing((0, 5))) - 40)), "beyond the end"),
    "a block twice": (pointing((0, len(BLOCK)), (0, len(BLOCK))), "overlap"),
    "a compressed block": (pointing((0, len(BLOCK) - 1), block=BLOCK[:-1] + b"\1"), "compressed"),
    "a block without entries": (pointing((0, 8), block=block_of([])), "no entry"),
    "more places than bytes": (pointing((0, 8), block=b"\0\0\0\0" + (2**31).to_bytes(4, "little")), "no entry"),
    "a place within an entry": (
        pointing((0, len(BLOCK) + 4), block=block_of([ONE], restarts=(0, 2))), "no entry's"
    ),
    "a value beyond the block": (
        pointing((0, len(BLOCK)), block=BLOCK[:2] + b"\x7f" + BLOCK[3:]), "lengths are wrong"
    ),
    "more of the key before than it has": (
        pointing((0, len(BLOCK)), block=b"\x01" + BLOCK[1:]), "lengths are wrong"
    ),
    "a number without an end": (pointing((0, 20), block=b"\xff" * 12 + BLOCK[-8:]), "no end"),
    "a long key": (table([(b"k" * 300, b"")]), "lengths are wrong"),
    "a key twice": (table([ONE, ONE]), "not in order"),
    "no order": (table([TWO, ONE]), "not in order"),
    "no order among blocks": (table([TWO], [ONE]), "not in order"),
    "another ending": (table([ONE])[:-1], "cut short"),
    "too long": (bytes(1 << 20) + table([ONE]), "longer than"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "words"), WRONG_TABLES.values(), ids=WRONG_TABLES)
def test_a_wrong_table_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    """A length of the footer was allocated before the file's own was looked at."""
    (tmp_path / INDEX).write_bytes(content)
    with pytest.raises(ValueError, match=words):
        list(table_entries(tmp_path / INDEX))


def test_noise_is_refused_or_read(tmp_path: Path) -> None:
    """Any other error than ValueError would come through."""
    draw = random.Random(0)
    whole = table([ONE, TWO], [(b"c", b"3")])
    for _ in range(2000):
        content = bytearray(whole)
        for _ in range(draw.randint(1, 3)):
            content[draw.randrange(len(content) - 8)] = draw.choice([0, 1, 2, 0x7F, 0x80, 0xFF, draw.randrange(256)])
        (tmp_path / INDEX).write_bytes(content)
        try:
            assert len(list(table_entries(tmp_path / INDEX))) <= 3
        except ValueError:
            continue


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes of a name here")
@pytest.mark.parametrize("name", [INDEX, DATA])
def test_a_pipe_is_not_waited_for(prefix: Path, name: str) -> None:
    prefix.with_name(name).unlink()
    os.mkfifo(prefix.with_name(name))
    told: list[Exception] = []

    def read() -> None:
        try:
            read_index(prefix)
        except Exception as error:
            told.append(error)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(10)
    assert told
    assert "is missing" in str(told[0])


def test_an_index_of_the_first_format_is_not_looked_for(prefix: Path) -> None:
    """Where there is no index, TensorFlow takes ``model.ckpt`` for a file of its format of 2015, unchecked."""
    prefix.with_name(INDEX).rename(prefix)
    with pytest.raises(ValueError, match=f"{INDEX} is missing"):
        read_index(prefix)
