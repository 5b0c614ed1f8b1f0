"""Parquet files: a record a row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from slm.data.faults import Faults
from slm.data.readers.reader import WHOLE, Record, RecordReader, Span
from slm.errors import UserError
from slm.extras import require
from slm.registry import register_reader

_BATCH_BYTES = 1 << 20
_MAX_BATCH_ROWS = 1024


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
            for values in _rows(table, range(span.start, span.end), fields):
                yield Record(f"#{number}", values)
                number += 1
        except _Damaged as error:
            words = f"'{file}' is damaged ({error})"
            faults.add("unreadable", f"{name}#{number}", lambda: words)


class _Damaged(Exception):  # noqa: N818
    pass


def _opened(file: Path) -> Any:
    parquet = require("pyarrow.parquet", "data", "reading Parquet files")
    try:
        return parquet.ParquetFile(file, buffer_size=_BATCH_BYTES, pre_buffer=False)
    except _damage() as error:
        raise _Damaged(_first_line(error)) from None


def _damage() -> tuple[type[Exception], ...]:
    """What Arrow raises of a file: Python's own, or one of its many."""
    return (OSError, ValueError, require("pyarrow", "data", "reading Parquet files").ArrowException)


def _groups(metadata: Any) -> list[Any]:
    return [metadata.row_group(i) for i in range(metadata.num_row_groups)]


def _rows(table: Any, groups: range, fields: Sequence[str] | None) -> Iterator[dict[str, Any]]:
    metadata = table.metadata
    chosen = [metadata.row_group(i) for i in groups]
    size, rows = sum(group.total_byte_size for group in chosen), sum(group.num_rows for group in chosen)
    at_once = max(1, min(_MAX_BATCH_ROWS, _BATCH_BYTES * rows // max(1, size)))
    columns = None if fields is None else list(fields)
    try:
        for batch in table.iter_batches(batch_size=at_once, row_groups=list(groups), columns=columns):
            yield from batch.to_pylist()
    except _damage() as error:
        raise _Damaged(_first_line(error)) from None


def _check_columns(table: Any, file: Path, fields: Sequence[str] | None) -> None:
    there = table.schema_arrow.names
    for field in fields or ():
        if field not in there:
            raise UserError(f"data.field: '{file}' has no column '{field}'; it has: {', '.join(there)}")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
