"""JSON Lines: a record a line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from slm.data.documents.compression import BYTE_ORDER_MARK, BrokenFileError, line_number, pieces
from slm.data.documents.reader import WHOLE, Record, RecordReader, Span, byte_spans
from slm.data.faults import Faults
from slm.registry import register_reader


@register_reader("jsonl")
class JsonlReader(RecordReader):
    """A line belongs to the span in which it begins. Records are named by the byte at which their line begins."""

    def spans(self, file: Path) -> list[Span]:
        return byte_spans(file, self.span_bytes)

    def records(
        self, file: Path, name: str, span: Span, faults: Faults, fields: Sequence[str] | None = None
    ) -> Iterator[Record]:
        """Blank lines are no records; a line longer than ``max_record_bytes`` is never held."""
        try:
            for offset, line in self._lines(file, span):
                if line is None:
                    self.too_long(file, name, f"@{offset}", faults)
                elif line.strip():
                    values = self._values(line, file, name, offset, faults)
                    if values is not None:
                        yield Record(f"@{offset}", values)
        except BrokenFileError as error:
            words = str(error)
            faults.add(error.kind, name, lambda: words)

    def where(self, file: Path, place: str) -> str:
        """By the number of the line, which is counted for it."""
        return f"line {line_number(file, int(place[1:])):,} of '{file}'"

    def _lines(self, file: Path, span: Span) -> Iterator[tuple[int, bytes | None]]:
        limit = self.reading.max_record_bytes
        if span.start == 0:
            yield from _lines(pieces(file), 0, None if span == WHOLE else span.end, limit)
        else:  # the line that holds the byte before the span is another's, even if nothing of it is left but its end
            lines = _lines(pieces(file, span.start - 1), span.start - 1, span.end, limit)
            next(lines, None)
            yield from lines

    def _values(self, line: bytes, file: Path, name: str, offset: int, faults: Faults) -> dict[str, Any] | None:
        """The line's object; None, and a fault counted, if it holds none."""
        raw = line.removeprefix(BYTE_ORDER_MARK) if offset == 0 else line
        place = f"@{offset}"
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            byte = raw[error.start]
            faults.add("not_utf8", name + place, lambda: f"{self.where(file, place)} is not UTF-8 (byte 0x{byte:02x})")
            if not faults.replaces:
                return None
            text = raw.decode(errors="replace")
        try:
            values = json.loads(text)
            found = f"is {_words(values)}, not an object"
        except (ValueError, RecursionError) as error:
            values, found = None, f"is not JSON ({error})"
        if isinstance(values, dict):
            return values
        faults.add("bad_json", name + place, lambda: f"{self.where(file, place)} {found}")
        return None


def _words(value: Any) -> str:
    return {list: "an array", str: "a string", type(None): "null"}.get(type(value), "a number or a word")


def _lines(source: Iterator[bytes], at: int, end: int | None, limit: int) -> Iterator[tuple[int, bytes | None]]:
    """Lines that begin before `end`, each with the byte at which it begins; None for one longer than `limit`.

    Args:
        source: what comes from byte `at` on, in pieces.
    """
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
