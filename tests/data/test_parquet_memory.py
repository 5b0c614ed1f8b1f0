"""Parquet files of a few kB that stand for gigabytes: read in bounded memory, or refused before it is taken."""

from __future__ import annotations

import io
import itertools
import random
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from slm.data.documents.corpus_files import file_sources
from slm.data.documents.parquet_content import longest_record, longest_value
from slm.data.documents.parquet_memory import rows_at_once
from slm.data.documents.parquet_pages import Chunk, chunks_of, pages_of
from slm.data.documents.reader import Record
from slm.data.faults import Faults
from slm.data.reading import Reading
from slm.errors import UserError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

MB = 1 << 20


@contextmanager
def arrow_memory() -> Iterator[Any]:
    """A pool that counts what Arrow takes meanwhile."""
    before = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(before)
    pa.set_memory_pool(pool)
    try:
        yield pool
    finally:
        pa.set_memory_pool(before)


def records(file: Path, on_bad: Any = "refuse", **reading: Any) -> Iterator[Record]:
    (of,) = file_sources([file], Reading(**reading))
    return (record for span in of.spans() for record in of.records(span, Faults(on_bad)))


def repeated(text: str, rows: int) -> Any:
    """Stored as one string and a number."""
    zeros = pa.Array.from_buffers(pa.int32(), rows, [None, pa.py_buffer(bytes(4 * rows))])
    return pa.table({"text": pa.DictionaryArray.from_arrays(zeros, [text])})


def one_list(values: Any) -> Any:
    return pa.table({"list": pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)})


READ: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "equal strings": (lambda: repeated("hello", 5_000_000), {}),
    "a long string repeated": (lambda: repeated("x" * MB, 300), {}),
    "long beginnings repeated": (
        lambda: pa.table({"text": [f"{'x' * (MB // 2)}{i}" for i in range(400)]}),
        {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}},
    ),
    "long strings in pages of their own": (
        lambda: pa.table({"text": ["x" * (10 * MB)] * 20 + ["x"] * 20_000}),
        {"use_dictionary": False, "data_page_size": 2000, "write_batch_size": 1},
    ),
}


@pytest.mark.parametrize("name", READ)
def test_rows_are_read_a_few_at_once_if_they_are_long(name: str, tmp_path: Path) -> None:
    """Of 1,024 rows of a MB each, 1 GB was taken, though the file had a few kB."""
    make, options = READ[name]
    table = make()
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd", store_schema=False, **options)
    assert (tmp_path / "a.parquet").stat().st_size < 100_000
    rows = min(len(table), 20_000)
    expected = [len(text) for text in table["text"].slice(0, rows).to_pylist()]
    del table
    with arrow_memory() as pool:
        read = itertools.islice(records(tmp_path / "a.parquet"), rows)
        assert [len(record.values["text"]) for record in read] == expected
        assert pool.max_memory() < 100 * MB


REFUSED: dict[str, Callable[[], Any]] = {
    "a page": lambda: pa.table({"text": ["x" * (10 * MB)] * 4}),
    "a list of zeros": lambda: one_list(pa.array(bytes(2_000_000), pa.uint8())),
    "a list of nulls": lambda: one_list(pa.nulls(2_000_000)),
    "a list of long strings": lambda: one_list(pa.array(["x" * 10_000] * 10_000)),
    "a list of a fixed size": lambda: pa.table({"list": pa.array([None], pa.list_(pa.int8(), 5_000_000))}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_row_or_page_that_is_a_bomb_is_refused(name: str, tmp_path: Path) -> None:
    """Before memory is taken for it; and it counts as a fault of the file."""
    file = tmp_path / "a.parquet"
    pq.write_table(
        REFUSED[name](), file, compression="zstd", use_dictionary=["list.list.element"], data_page_size=1 << 30
    )
    assert file.stat().st_size < 100_000
    with arrow_memory() as pool:
        with pytest.raises(
            UserError, match=r"\Adata.path: '.*' is damaged \([^\n]* grow [^\n]*; no text does\)[^\n]*\Z"
        ):
            list(records(file))
        assert list(records(file, "skip")) == []
        assert pool.max_memory() < 10 * MB


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


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (b"\x15\x00\x15\x04\x15\x06\x2c\x15\x02\x00\x00", "a page of 3 bytes, where 2 are left"),
        (b"\x15\x00\x15\x04\x15\x01\x2c\x15\x02\x00\x00", "damaged"),  # -1 bytes
        (b"\x15\x00\x15\x04\x15\x80\x80\x80\x80\x20\x2c\x15\x02\x00\x00", "too large"),  # 2 ** 32
        (b"\x15\x00\x15\x04\x15\x04\x05\x06\x04\x2c\x15\x02\x00\x00", "damaged"),  # its size twice
        (b"\x15\x00\x15\x04\x15\x04\x2c\x15\x02", "no end"),
        (b"\x1c" * 500, "too deeply"),
    ],
)
def test_a_damaged_header_is_told(header: bytes, said: str) -> None:
    """What Thrift would read otherwise than we do is refused, so that Arrow takes nothing that was not looked at."""
    content = header + (b"ab" if "end" not in said else b"")
    chunk = Chunk(kind=6, codec=0, values=1, packed=len(content), start=0)
    with pytest.raises(ValueError, match=said):
        list(pages_of(io.BytesIO(content), chunk))


def test_a_record_over_the_limit_is_left_out(tmp_path: Path) -> None:
    rows = [{"text": "a"}, {"text": "b" * 5000}, {"text": "c"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"record #1 of '.*a.parquet' is longer than data.max_record_bytes \(3,000\)"):
        list(records(tmp_path / "a.parquet", max_record_bytes=3000))
    left = list(records(tmp_path / "a.parquet", "skip", max_record_bytes=3000))
    assert [(record.place, record.values) for record in left] == [("#0", rows[0]), ("#2", rows[2])]


def test_a_large_row_group_is_read_in_large_batches(tmp_path: Path) -> None:
    draw = random.Random(0)
    texts = [draw.randbytes(500).hex() for _ in range(60_000)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", row_group_size=len(texts))
    assert rows_at_once(tmp_path / "a.parquet", pq.ParquetFile(tmp_path / "a.parquet"), 0, ["text"], 1024) == 1024
    with arrow_memory() as pool:
        assert [record.values["text"] for record in records(tmp_path / "a.parquet")] == texts
        assert pool.max_memory() < 20 * MB


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "brotli", "zstd", "lz4"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_the_longest_values_and_records_are_found(compression: str, version: str, tmp_path: Path) -> None:
    """As they were written, in pages of any kind; a file that was not understood would count as the worst there is."""
    draw = random.Random(f"{compression} {version}")
    for _ in range(8):
        pool = ["".join(draw.choices("abé", k=draw.choice([0, 3, 50]))) for _ in range(draw.choice([1, 500]))]
        values = [[draw.choice(pool) for _ in range(draw.choice([0, 1, 3, draw.randint(0, 900)]))] for _ in range(200)]
        nested = [[values[draw.randrange(200)][:40] for _ in range(draw.randint(0, 4))] for _ in values]
        pq.write_table(
            pa.table({"a": values, "b": nested}),
            tmp_path / "a.parquet",
            compression=compression,
            data_page_version=version,
            data_page_size=draw.choice([50, 5000, MB]),
            write_batch_size=draw.choice([7, 1024]),
        )
        longest = [max(len(x) or 1 for x in values), max(sum(len(y) or 1 for y in x) or 1 for x in nested)]
        with (tmp_path / "a.parquet").open("rb") as file:
            (chunks,) = chunks_of(tmp_path / "a.parquet")
            for i, chunk in enumerate(chunks):
                assert longest_record(file, pages_of(file, chunk), chunk.codec, i + 1) == longest[i]
            text = max((len(v.encode()) for x in values for v in x), default=0)
            assert longest_value(file, next(pages_of(file, chunks[0])), chunks[0].codec) == text
