"""How much memory a row group of a Parquet file takes, told before Arrow takes it.

A few bytes of such a file may stand for gigabytes: a page says itself how long it will be, and a string in a dictionary
or a value of a list is repeated by a number. Arrow reads as many rows at once as it is told to, so most of this is no
harm if they are few; what a single row needs is bounded by what the file itself holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from slm.data.documents.parquet_content import longest_record, longest_value
from slm.data.documents.parquet_pages import Chunk, Page, chunks_of, pages_of
from slm.extras import require

_NO_BOMB = 32 << 20
_MOST_GROWTH = 32  # of what is longer; text shrinks to a tenth
_VALUE_BYTES = 64  # about what a short value takes as an object of Python
_ENTRY_BYTES = 16  # what Arrow takes for each string of a dictionary, and of a page with a delta encoding
_NULL_BYTES = 8
_MANY = 1 << 62
_BYTE_ARRAY = 6  # of the format's types
_DELTA_LENGTH_BYTE_ARRAY, _DELTA_BYTE_ARRAY = 6, 7  # of its encodings


def rows_at_once(file: Path, table: Any, group: int, fields: Sequence[str] | None, wanted: int) -> int:
    """How many rows of a row group can be read together in bounded memory, at most `wanted`.

    Args:
        file: where it lies.
        table: the same as a `pyarrow.parquet.ParquetFile`.
        group: its number.
        fields: the columns that are read, None for all.

    Raises:
        ValueError: not even one, or the header of a page is damaged.
    """
    leaves = _leaves(table, fields)
    if not leaves:  # Arrow makes as many rows as the file says there are
        raise ValueError("it has no columns")
    chunks = _chunks(file, group, len(table.schema))
    kinds = [field.type for field in table.schema_arrow if fields is None or field.name in fields]
    with file.open("rb") as content:
        columns = [_Column.of(content, chunks[leaf], table.schema.column(leaf)) for leaf in leaves]
        packed = min(sum(column.chunk.packed for column in columns), file.stat().st_size)
        _check_growth(f"pages of row group {group} grow", packed, sum(column.held for column in columns))
        if _taken(columns, kinds, max(column.values for column in columns)) <= _NO_BOMB:
            return wanted
        for column in columns:
            column.look_into(content)
    rows = wanted
    while rows > 1 and _taken(columns, kinds, rows) > _NO_BOMB:
        rows //= 2
    _check_growth(f"a row of row group {group} may grow", packed, _taken(columns, kinds, rows))
    return rows


def _chunks(file: Path, group: int, count: int) -> list[Chunk]:
    groups = chunks_of(file)
    if group >= len(groups) or len(groups[group]) != count:
        raise ValueError("its metadata are damaged")
    return groups[group]


def _taken(columns: Sequence[_Column], kinds: Sequence[Any], rows: int) -> int:
    longest = max(column.longest for column in columns)
    padding = sum(_padding(kind, longest) for kind in kinds)
    return rows * padding + sum(column.taken_by(rows * column.longest) for column in columns)


def _padding(kind: Any, values: int) -> int:
    """Bytes that Arrow fills for a row of so many nulls: a list of a fixed size has its length even then."""
    types = require("pyarrow.types", "data", "reading Parquet files")
    kind = getattr(kind, "storage_type", kind)  # of an extension
    inner = sum(_padding(kind.field(i).type, values) for i in range(kind.num_fields))
    if types.is_fixed_size_list(kind):
        return int(kind.list_size * max(_NULL_BYTES, inner))
    return inner if types.is_struct(kind) else inner * values


def _check_growth(what: str, packed: int, size: int) -> None:
    if size > max(_NO_BOMB, _MOST_GROWTH * packed):
        raise ValueError(f"{what} from {packed:,} bytes to {size:,}; no text does")


def _leaves(table: Any, fields: Sequence[str] | None) -> list[int]:
    """Numbers of the columns with values: of a field that is nested there are several."""
    paths = [table.schema.column(i).path for i in range(len(table.schema))]
    chosen = tuple(f"{field}." for field in fields or ())
    return [i for i, path in enumerate(paths) if fields is None or f"{path}.".startswith(chosen)]


@dataclass
class _Column:
    """A column of a row group, as the headers of its pages describe it.

    Attributes:
        chunk: where it lies.
        highest: repetition level; 0 of a column with one value a row.
        width: bytes of a value, where the schema gives them.
        values: nulls among them.
        longest: values of the longest record, or more.
        dictionary: of strings, if there is one.
        entry: bytes of the longest string in it, or more.
        entries: bytes that Arrow keeps of dictionaries.
        page: bytes of the longest page of values.
        delta: bytes of the longest page whose strings begin as the one before does.
        offsets: bytes that Arrow takes to unpack the lengths in a page.
        total: bytes of all pages of values.
        fewest: values in a page, the last one aside.
    """

    chunk: Chunk
    highest: int
    width: int
    values: int = 0
    longest: int = 1
    dictionary: Page | None = None
    entry: int = 0
    entries: int = 0
    page: int = 0
    delta: int = 0
    offsets: int = 0
    total: int = 0
    fewest: int = _MANY

    @classmethod
    def of(cls, file: BinaryIO, chunk: Chunk, schema: Any) -> _Column:
        """Its pages are not read.

        Args:
            file: that it is in.
            chunk: where in it.
            schema: its `pyarrow.parquet.ColumnSchema`.
        """
        column = cls(chunk, schema.max_repetition_level, max(0, schema.length))
        last = _MANY
        for page in pages_of(file, column.chunk):
            if page.is_dictionary:
                column._add_dictionary(page)
            else:
                column._add(page)
                column.fewest = max(1, min(column.fewest, last))
                last = page.values
        column.longest = column.values if column.highest else 1
        return column

    @property
    def held(self) -> int:
        """Bytes that Arrow takes however few rows are read."""
        return self.entries + self.page + self.offsets

    def taken_by(self, values: int) -> int:
        """Bytes that so many, or all, values one after another take as objects, and the pages that they are in
        beyond two."""
        values = min(values, self.values)
        each = _VALUE_BYTES + self.width + self.entry + self.delta
        return values * each + min(self.total, self.page * (values // self.fewest))

    def look_into(self, file: BinaryIO) -> None:
        """Find `longest` and `entry`, unless the pages are packed in a way that only Arrow knows."""
        codec, arrow = self.chunk.codec, require("pyarrow", "data", "reading Parquet files")
        with suppress(ValueError, LookupError, OSError, arrow.ArrowException):
            if self.highest:
                self.longest = longest_record(file, pages_of(file, self.chunk), codec, self.highest)
        with suppress(ValueError, LookupError, OSError, arrow.ArrowException):
            if self.dictionary:
                self.entry = longest_value(file, self.dictionary, codec)

    def _add_dictionary(self, page: Page) -> None:
        self.entries += page.most_bytes + _ENTRY_BYTES * page.values
        if self.chunk.kind == _BYTE_ARRAY:
            self.dictionary, self.entry = page, max(self.entry, page.most_bytes)

    def _add(self, page: Page) -> None:
        self.values += page.values
        self.total += page.most_bytes
        self.page = max(self.page, page.most_bytes)
        if page.encoding in (_DELTA_LENGTH_BYTE_ARRAY, _DELTA_BYTE_ARRAY):
            self.offsets = max(self.offsets, _ENTRY_BYTES * page.values)
        if page.encoding == _DELTA_BYTE_ARRAY:
            self.delta = max(self.delta, page.most_bytes)
