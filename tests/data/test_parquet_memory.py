"""Parquet files of a few kB that stand for gigabytes: read by a process that is held to a size, or refused in one line;
honest ones are read exactly."""

from __future__ import annotations

import itertools
import os
import random
import signal
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from slm.data.config import Reading
from slm.data.documents import parquet_process
from slm.data.documents.parquet import ParquetFile
from slm.data.documents.source import Record
from slm.data.faults import Faults
from slm.errors import UserError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

MB = 1 << 20
MEMORY = 96 * MB
LITTLE = 48 * MB
HELD_TO_A_SIZE = pytest.mark.skipif(sys.platform != "linux", reason="this system holds no process to a size")


def first_alone(names: Iterable[str]) -> list[Any]:
    """The others are for the night."""
    first, *others = names
    return [first, *(pytest.param(name, marks=pytest.mark.nightly) for name in others)]


@pytest.fixture(autouse=True)
def none_at_rest() -> Iterator[None]:
    """What one test did to a process is no other's business."""
    yield
    parquet_process._end_all()


def records(file: Path, on_bad: Any = "refuse", memory: int | None = MEMORY, **reading: Any) -> Iterator[Record]:
    of = ParquetFile(file, file.name, Reading(**reading), memory)
    return (record for span in of.spans() for record in of.records(span, Faults(on_bad)))


def repeated(text: str, rows: int) -> Any:
    """Stored as one string and a number."""
    zeros = pa.Array.from_buffers(pa.int32(), rows, [None, pa.py_buffer(bytes(4 * rows))])
    return pa.table({"text": pa.DictionaryArray.from_arrays(zeros, [text])})


def one_list(values: Any) -> Any:
    return pa.table({"list": pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)})


READ: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "equal strings": (lambda: repeated("hello", 1_000_000), {}),
    "a long string repeated": (lambda: repeated("x" * MB, 200), {}),
    "long beginnings repeated": (
        lambda: pa.table({"text": [f"{'x' * (MB // 2)}{i}" for i in range(200)]}),
        {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}},
    ),
    "long strings in pages of their own": (
        lambda: pa.table({"text": ["x" * (10 * MB)] * 12 + ["x"] * 20_000}),
        {"use_dictionary": False, "data_page_size": 2000, "write_batch_size": 1},
    ),
}


@HELD_TO_A_SIZE
@pytest.mark.parametrize("name", first_alone(READ))
def test_rows_are_read_one_by_one_if_they_are_long(name: str, tmp_path: Path) -> None:
    """Of 1,024 rows of a MB each, 1 GB was taken, though the file had a few kB."""
    make, options = READ[name]
    table = make()
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd", store_schema=False, **options)
    assert (tmp_path / "a.parquet").stat().st_size < 100_000
    rows = min(len(table), 20_000)
    expected = [len(text) for text in table["text"].slice(0, rows).to_pylist()]
    del table
    read = itertools.islice(records(tmp_path / "a.parquet"), rows)
    assert [len(record.values["text"]) for record in read] == expected


REFUSED: dict[str, Callable[[], Any]] = {
    "a page": lambda: pa.table({"text": ["x" * (10 * MB)] * 6}),
    "a list of zeros": lambda: one_list(pa.array(bytes(8_000_000), pa.uint8())),
    "a list of nulls": lambda: one_list(pa.nulls(8_000_000)),
    "a list of long strings": lambda: one_list(pa.array(["x" * 10_000] * 6_000)),
    "a list of a fixed size": lambda: pa.table({"list": pa.array([None], pa.list_(pa.int64(), 8_000_000))}),
}


@HELD_TO_A_SIZE
@pytest.mark.parametrize("name", first_alone(REFUSED))
def test_what_needs_more_memory_than_there_is_is_refused(name: str, tmp_path: Path) -> None:
    """In one line that says how much it may take and what to do; it counts as a fault of the file, and the next one is
    read."""
    file = tmp_path / "a.parquet"
    pq.write_table(
        REFUSED[name](), file, compression="zstd", use_dictionary=["list.list.element"], data_page_size=1 << 30
    )
    assert file.stat().st_size < 200_000
    with pytest.raises(
        UserError,
        match=r"\Adata.path: '[^\n]*' takes more than 48 MiB to read, 16 times data.max_record_bytes; "
        r"raise data.max_record_bytes \(or set data.on_bad=skip, which counts it\)\Z",
    ):
        list(records(file, memory=LITTLE, max_record_bytes=1 << 30))
    assert list(records(file, "skip", LITTLE, max_record_bytes=1 << 30)) == []
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "b.parquet")
    assert [record.values for record in records(tmp_path / "b.parquet")] == [{"text": "a"}]


@HELD_TO_A_SIZE
def test_the_limit_is_the_kernels(tmp_path: Path) -> None:
    """What Arrow takes is bounded whatever a file says."""
    pq.write_table(pa.table({"text": ["a", "b"]}), tmp_path / "a.parquet", row_group_size=1)
    limits = {}
    for reading in ({}, {"max_record_bytes": 40 * MB}):
        reads = records(tmp_path / "a.parquet", memory=None, **reading)
        next(reads)
        (process,) = (child for child in psutil.Process().children() if "parquet_process" in " ".join(child.cmdline()))
        limits[len(reading)], _ = process.rlimit(psutil.RLIMIT_AS)
        list(reads)
    assert limits[1] - limits[0] == 16 * 8 * MB


def test_a_process_that_ends_is_a_fault_of_the_file(tmp_path: Path) -> None:
    """Some damaged files end whoever reads them."""
    pq.write_table(pa.table({"text": ["x" * 5000] * 2000}), tmp_path / "a.parquet", use_dictionary=False)
    reads = records(tmp_path / "a.parquet")
    next(reads)
    (process,) = (child for child in psutil.Process().children() if "parquet_process" in " ".join(child.cmdline()))
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(
        UserError, match=r"\Adata.path: '[^\n]*' ended the process that read it \(status -9\); [^\n]*\Z"
    ):
        list(reads)
    assert len(list(records(tmp_path / "a.parquet"))) == 2000


def test_files_are_read_side_by_side_and_left_halfway(tmp_path: Path) -> None:
    """Each by a process of its own while they are; none is left over."""
    for name in "ab":
        pq.write_table(pa.table({"text": [f"{name}{i}" * 1000 for i in range(5000)]}), tmp_path / name)
    pairs = zip(records(tmp_path / "a"), records(tmp_path / "b"), strict=True)
    assert all(a.values["text"] == b.values["text"].replace("b", "a") for a, b in pairs)
    assert len(parquet_process._at_rest) == 2
    reads = records(tmp_path / "a")
    next(reads)
    reads.close()
    assert len(parquet_process._at_rest) == 1


def test_rows_without_columns_are_refused(tmp_path: Path) -> None:
    """Arrow makes as many as the footer says there are: 10 ** 11 of them in 40 bytes."""
    rows = b"\x16\x80\xa0\xb7\x87\xe9\x05"
    group = b"\x19\x0c\x16\x00" + rows + b"\x00"
    footer = b"\x15\x04\x19\x1c\x48\x01s\x15\x00\x00" + rows + b"\x19\x1c" + group + b"\x00"
    (tmp_path / "a.parquet").write_bytes(b"PAR1" + footer + struct.pack("<I", len(footer)) + b"PAR1")
    with pytest.raises(UserError, match="it has no columns"):
        next(records(tmp_path / "a.parquet"))


def test_a_list_that_is_said_to_be_long_takes_no_memory(tmp_path: Path) -> None:
    """Of row groups and columns, the footer gives a number, for each of which Arrow took a kB at once."""
    a_million = b"\x19\xfc\xbf\x84\x3d"
    footer = b"\x15\x04\x19\x1c\x48\x01s\x15\x00\x00\x16\x00" + a_million + a_million
    (tmp_path / "a.parquet").write_bytes(b"PAR1" + footer + struct.pack("<I", len(footer)) + b"PAR1")
    with pytest.raises(UserError, match="Exceeded size limit"):
        next(records(tmp_path / "a.parquet"))


def test_a_record_over_the_limit_is_left_out(tmp_path: Path) -> None:
    rows = [{"text": "a"}, {"text": "b" * 5000}, {"text": "c"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"record #1 of '.*a.parquet' is longer than data.max_record_bytes \(3,000\)"):
        list(records(tmp_path / "a.parquet", max_record_bytes=3000))
    left = list(records(tmp_path / "a.parquet", "skip", max_record_bytes=3000))
    assert [(record.place, record.values) for record in left] == [("#0", rows[0]), ("#2", rows[2])]


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "brotli", "zstd", "lz4"])
@pytest.mark.parametrize("version", first_alone(["2.0", "1.0"]))
def test_honest_files_are_read_exactly(compression: str, version: str, tmp_path: Path) -> None:
    """In pages of any kind, nested columns too, also a large row group."""
    draw = random.Random(f"{compression} {version}")
    pool = ["".join(draw.choices("abé", k=draw.choice([0, 3, 50]))) for _ in range(draw.choice([1, 500]))]
    values = [[draw.choice(pool) for _ in range(draw.choice([0, 1, 3, draw.randint(0, 900)]))] for _ in range(200)]
    rows = [{"a": value, "b": [value[:3], []], "text": draw.randbytes(500).hex()} for value in values] * 10
    pq.write_table(
        pa.Table.from_pylist(rows),
        tmp_path / "a.parquet",
        compression=compression,
        data_page_version=version,
        data_page_size=draw.choice([50, 5000, MB]),
        write_batch_size=draw.choice([7, 1024]),
    )
    assert [record.values for record in records(tmp_path / "a.parquet", memory=None)] == rows
