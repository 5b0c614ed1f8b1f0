"""Parquet files: a record a row."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from slm.data.config import Reading
from slm.data.documents.compression import BrokenFileError
from slm.data.documents.parquet_process import LEAST_MEMORY, MEMORY_OF_RECORDS, ask
from slm.data.documents.source import WHOLE, FileSource, Record, RecordSource, Span, grouped
from slm.data.faults import Faults
from slm.extras import check_installed
from slm.registry import register_reader


@register_reader("parquet")
class ParquetFile(RecordSource, FileSource):
    """A span is as many row groups as hold about `span_bytes`. Records are named by the number of their row. Reading
    may take `memory` bytes; by default in proportion to ``max_record_bytes``."""

    def __init__(self, file: Path, name: str, reading: Reading, memory: int | None = None) -> None:
        super().__init__(file, name, reading)
        self.memory = memory or max(LEAST_MEMORY, MEMORY_OF_RECORDS * reading.max_record_bytes)

    def spans(self) -> list[Span]:
        check_installed("pyarrow", "data", "reading Parquet files")
        try:
            (groups,) = ask("groups", self.path, memory=self.memory)
        except BrokenFileError:
            return [WHOLE]
        adjacent = grouped(range(len(groups)), groups.__getitem__, self.span_bytes)
        return [Span(numbers[0], numbers[-1] + 1) for numbers in adjacent] or [Span(0, 0)]

    def records(self, span: Span, faults: Faults, fields: Sequence[str] | None = None) -> Iterator[Record]:
        """A few rows are held at a time, of row groups of any size. `UserError` if there is no such column."""
        asked = (*span, fields and list(fields), self.reading.max_record_bytes)
        number = 0
        try:
            for first, rows in ask("rows", self.path, *asked, memory=self.memory):
                for number, values in enumerate(rows, first):
                    if values is None:
                        self.too_long(f"#{number}", faults)
                    else:
                        yield Record(f"#{number}", values)
                number = first + len(rows)
        except BrokenFileError as error:
            faults.add(error.kind, f"{self.name}#{number}", str(error))
