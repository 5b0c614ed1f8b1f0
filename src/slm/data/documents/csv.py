"""Tables as text (``.csv``, ``.tsv``): a record a row, the first row the names of the columns unless they are given."""

import csv
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from slm.data.config import AUTO
from slm.data.documents.compression import BYTE_ORDER_MARK, BrokenFileError
from slm.data.documents.fields import column_of, longest_text
from slm.data.documents.json import lines_of
from slm.data.documents.source import WHOLE, FileSource, Record, RecordSource, Span
from slm.data.faults import Faults
from slm.registry import register_reader

_DELIMITERS = ",;\t|"
_MOST = (1 << 31) - 1  # characters, as far as the reader counts


@register_reader("csv")
class CsvFile(RecordSource, FileSource):
    """Values in quotes may hold line ends. Records are named by the line on which they end."""

    def spans(self) -> list[Span]:
        return [WHOLE]

    def records(self, span: Span, faults: Faults, fields: Sequence[str] | None = None) -> Iterator[Record]:
        """At most `max_record_bytes` of a value are held. `UserError` if there is no such column."""
        delimiter, header, count = self._delimiter(), list(self.reading.header or ()), 0
        for place, row in self._rows(delimiter, faults):
            if not header:
                header = row
            elif len(row) != len(header):
                words = f"{self.where(place)} has {len(row)} values for {len(header)} columns"
                faults.add("bad_csv", self.name + place, words)
            else:
                values = dict(zip(header, row, strict=True))
                if count == 0:
                    self._check(fields or (), values)
                yield Record(place, values)
                count += 1
        read = f", of which '{fields[0]}' is read" if fields else ""
        faults.recognise(f"rows of tables divided by {delimiter!r}{read}", count)
        self.tell_encoding(faults)

    def where(self, place: str) -> str:
        return f"line {int(place[1:]):,} of '{self.file}'"

    def _rows(self, delimiter: str, faults: Faults) -> Iterator[tuple[str, list[str]]]:
        csv.field_size_limit(min(self.reading.max_record_bytes, _MOST))
        rows = csv.reader(self._lines(faults), delimiter=delimiter, strict=True)
        while True:
            try:
                row = next(rows, None)
            except csv.Error as error:
                place = f"#{rows.line_num}"
                if "limit" in str(error):  # nobody knows where that value ends
                    self.too_long(place, faults)
                    return
                faults.add("bad_csv", self.name + place, f"{self.where(place)} is no row ({error})")
                continue
            except BrokenFileError as error:
                faults.add(error.kind, self.name, f"{error}, after {rows.line_num:,} lines")
                return
            if row is None:
                return
            if row:
                yield f"#{rows.line_num}", row

    def _check(self, fields: Sequence[str], first: dict[str, Any]) -> None:
        longest = longest_text(first)
        for field in fields:
            column_of(field, list(first), [longest] if longest else [], self.place)

    def _delimiter(self) -> str:
        if self.reading.delimiter != AUTO:
            return self.reading.delimiter.replace("tab", "\t")
        if any(ending.lower() == ".tsv" for ending in self.file.suffixes):
            return "\t"
        try:
            first = next(self.pieces(size=1 << 16), b"").split(b"\n")[0].decode(errors="replace")
        except BrokenFileError:  # told when it is read
            first = ""
        return max(_DELIMITERS, key=first.count)

    def _lines(self, faults: Faults) -> Iterator[str]:
        for number, (offset, line) in enumerate(
            lines_of(self.pieces(), 0, sys.maxsize, self.reading.max_record_bytes), 1
        ):
            if line is None:
                self.too_long(f"#{number}", faults)
            raw = (line or b"").removeprefix(BYTE_ORDER_MARK if offset == 0 else b"")
            yield raw.decode(errors="surrogateescape") + "\n"
