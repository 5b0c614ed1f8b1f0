"""Parquet files: a record a row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from slm.data.documents.parquet_memory import rows_at_once
from slm.data.documents.reader import WHOLE, Record, RecordReader, Span
from slm.data.faults import Faults
from slm.errors import UserError
from slm.extras import require
from slm.registry import register_reader

_BATCH_BYTES = 1 << 20
_MAX_BATCH_ROWS = 1024
_MOST_ITEMS = 100_000  # row groups, columns: Arrow takes a kB for each that a file says it has


@register_reader("parquet")
class ParquetReader(RecordReader):
    """A span is as many row groups as hold about `span_bytes`. Records are named by the number of their row."""

    def spans(self, file: Path) -> list[Span]:
        """Row groups."""
        try:
            groups = _groups(_opened(file).metadata)
        except _Damaged:
            return [WHOLE]
        spans, start, size = [], 0, 0
        for i, group in enumerate(groups):
            size += group.total_byte_size
            if size >= self.span_bytes or i + 1 == len(groups):
                spans.append(Span(start, i + 1))
                start, size = i + 1, 0
        return spans or [Span(0, 0)]

    def records(
        self, file: Path, name: str, span: Span, faults: Faults, fields: Sequence[str] | None = None
    ) -> Iterator[Record]:
        """Pages are read one after another, so that a row group may be larger than memory.

        Raises:
            UserError: there is no such column, whatever becomes of faults.
        """
        number = 0
        try:
            table = _opened(file)
            _check_columns(table, file, fields)
            number = sum(group.num_rows for group in _groups(table.metadata)[: span.start])
            for values in self._rows(file, table, range(span.start, span.end), fields):
                if values is None:
                    self.too_long(file, name, f"#{number}", faults)
                else:
                    yield Record(f"#{number}", values)
                number += 1
        except _Damaged as error:
            words = f"'{file}' is damaged ({error})"
            faults.add("unreadable", f"{name}#{number}", lambda: words)

    def _rows(
        self, file: Path, table: Any, groups: range, fields: Sequence[str] | None
    ) -> Iterator[dict[str, Any] | None]:
        """Those of some row groups; None for one that is too long."""
        columns = None if fields is None else list(fields)
        try:
            for group in groups:
                about = table.metadata.row_group(group)
                wanted = max(1, min(_MAX_BATCH_ROWS, _BATCH_BYTES * about.num_rows // max(1, about.total_byte_size)))
                rows = rows_at_once(file, table, group, fields, wanted)
                for batch in table.iter_batches(batch_size=rows, row_groups=[group], columns=columns):
                    yield from _values(batch, self.reading.max_record_bytes)
        except _damage() as error:
            raise _Damaged(_first_line(error)) from None


class _Damaged(Exception):  # noqa: N818
    pass


def _opened(file: Path) -> Any:
    parquet = require("pyarrow.parquet", "data", "reading Parquet files")
    try:
        return parquet.ParquetFile(
            file, buffer_size=_BATCH_BYTES, pre_buffer=False, thrift_container_size_limit=_MOST_ITEMS
        )
    except _damage() as error:
        raise _Damaged(_first_line(error)) from None


def _damage() -> tuple[type[Exception], ...]:
    """What Arrow raises of a file: Python's own, or one of its many."""
    return (OSError, ValueError, require("pyarrow", "data", "reading Parquet files").ArrowException)


def _groups(metadata: Any) -> list[Any]:
    return [metadata.row_group(i) for i in range(metadata.num_row_groups)]


def _values(batch: Any, limit: int) -> Iterator[dict[str, Any] | None]:
    """The rows of a batch; one that is longer than the limit never becomes objects of Python."""
    if batch.nbytes <= min(limit, 2 * _BATCH_BYTES):
        yield from batch.to_pylist()
        return
    for i in range(batch.num_rows):
        row = batch.slice(i, 1)
        yield row.to_pylist()[0] if row.nbytes <= limit else None


def _check_columns(table: Any, file: Path, fields: Sequence[str] | None) -> None:
    there = table.schema_arrow.names
    for field in fields or ():
        if field not in there:
            raise UserError(f"data.field: '{file}' has no column '{field}'; it has: {', '.join(there)}")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
