"""JSON Lines: a record a line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from slm.data.documents.compression import BYTE_ORDER_MARK, BrokenFileError, line_number, pieces
from slm.data.documents.source import WHOLE, FileSource, Record, RecordSource, Span
from slm.data.faults import Faults
from slm.registry import register_reader

_WORDS = {list: "an array", str: "a string", type(None): "null"}


@register_reader("jsonl")
class JsonlFile(RecordSource, FileSource):
    """A line belongs to the span in which it begins. Records are named by the byte at which their line begins."""

    def spans(self) -> list[Span]:
        return self.byte_spans()

    def records(self, span: Span, faults: Faults, fields: Sequence[str] | None = None) -> Iterator[Record]:
        """Blank lines are no records; a line longer than ``max_record_bytes`` is never held."""
        try:
            for offset, line in self._lines(span):
                if line is None:
                    self.too_long(f"@{offset}", faults)
                elif line.strip():
                    values = self._values(line, offset, faults)
                    if values is not None:
                        yield Record(f"@{offset}", values)
        except BrokenFileError as error:
            faults.add(error.kind, self.name, str(error))

    def where(self, place: str) -> str:
        """By the number of the line, which is counted for it."""
        return f"line {line_number(self.file, int(place[1:])):,} of '{self.file}'"

    def _lines(self, span: Span) -> Iterator[tuple[int, bytes | None]]:
        limit = self.reading.max_record_bytes
        if span.start == 0:
            yield from _lines(pieces(self.file), 0, None if span == WHOLE else span.end, limit)
        else:  # the line that holds the byte before the span is another's, even if nothing of it is left but its end
            lines = _lines(pieces(self.file, span.start - 1), span.start - 1, span.end, limit)
            next(lines, None)
            yield from lines

    def _values(self, line: bytes, offset: int, faults: Faults) -> dict[str, Any] | None:
        """The line's object; None, and a fault counted, if it holds none."""
        raw = line.removeprefix(BYTE_ORDER_MARK) if offset == 0 else line
        place = f"@{offset}"
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            byte = raw[error.start]
            faults.add("not_utf8", self.name + place, lambda: f"{self.where(place)} is not UTF-8 (byte 0x{byte:02x})")
            if not faults.replaces:
                return None
            text = raw.decode(errors="replace")
        try:
            values = json.loads(text)
            found = f"is {_WORDS.get(type(values), 'a number or a word')}, not an object"
        except (ValueError, RecursionError) as error:
            values, found = None, f"is not JSON ({error})"
        if isinstance(values, dict):
            return values
        faults.add("bad_json", self.name + place, lambda: f"{self.where(place)} {found}")
        return None


def _lines(source: Iterator[bytes], at: int, end: int | None, limit: int) -> Iterator[tuple[int, bytes | None]]:
    """Lines that begin before `end`, each with the byte at which it begins; None for one longer than `limit`. `source`
    is what comes from byte `at` on, in pieces."""
    begin, held, size, read, told = at, bytearray(), 0, at, False
    for piece in source:
        *whole, rest = piece.split(b"\n")
        for row in whole:
            size += len(row)
            if not told:
                yield begin, (bytes(held) + row if held else row) if size <= limit else None
            begin, size, told = begin + size + 1, 0, False
            held.clear()
            if end is not None and begin >= end:
                return
        read += len(piece)
        size += len(rest)
        if size <= limit:
            held += rest
        else:
            held.clear()
            if not told:  # at once: its end may be gigabytes away
                yield begin, None
                told = True
            if end is not None and read >= end:  # whatever follows begins in a later span
                break
    if size and not told:
        yield begin, bytes(held)
