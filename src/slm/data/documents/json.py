"""JSON Lines, a record a line; and JSON files: an array of records, read as a stream, or, as many are, these lines."""

from __future__ import annotations

import codecs
import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from slm.data.config import Reading
from slm.data.documents.compression import BYTE_ORDER_MARK, BrokenFileError
from slm.data.documents.member import Member
from slm.data.documents.source import WHOLE, FileSource, Record, RecordSource, Span, is_lost, mended
from slm.data.faults import Faults
from slm.registry import register_reader

_BLANK = " \t\r\n"
_SPACE = re.compile(rf"[{_BLANK}]*")
_LONGEST_WORD = 12  # of JSON: two escapes that make a character
_WORDS = {list: "an array", str: "a string", type(None): "null"}


@register_reader("jsonl")
class JsonlFile(RecordSource, FileSource):
    """A record a line, named by the byte at which that begins, and of the span in which it does."""

    def records(self, span: Span, faults: Faults, fields: Sequence[str] | None = None) -> Iterator[Record]:
        """Blank lines are no records; a line longer than ``max_record_bytes`` is never held."""
        # of a span the first line is another's, if only its end: the one that holds the byte before
        at, end = max(0, span.start - 1), sys.maxsize if span == WHOLE else span.end
        lines = lines_of(self.pieces(at), at, end, self.reading.max_record_bytes)
        try:
            for offset, line in islice(lines, int(span.start > 0), None):
                if line is None:
                    self.too_long(f"@{offset}", faults)
                elif line.strip() and (values := self._values(line, offset, faults)) is not None:
                    yield Record(f"@{offset}", values)
        except BrokenFileError as error:
            faults.add(error.kind, self.name, str(error))
        if span.start <= 0:
            self.tell_encoding(faults)

    def where(self, place: str) -> str:
        if isinstance(self.file, Member):
            return super().where(place)
        before = sum(piece.count(b"\n") for piece in self.pieces(size=int(place[1:])))
        return f"line {before + 1:,} of '{self.file}'"

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
            replaced = mended(raw.decode(errors="replace"), self.name + place, faults)
            if replaced is None:
                return None
            text = replaced
        try:
            values = json.loads(text)
            found = f"is {_WORDS.get(type(values), 'a number or a word')}, not an object"
        except (ValueError, RecursionError) as error:
            values, found = None, f"is not JSON ({error})"
        if isinstance(values, dict):
            return values
        faults.add("bad_json", self.name + place, lambda: f"{self.where(place)} {found}")
        return None


def lines_of(source: Iterator[bytes], at: int, end: int, limit: int) -> Iterator[tuple[int, bytes | None]]:
    """Lines of `source`, from byte `at` on, that begin before `end`, with their places; None for one above `limit`."""
    begin, held, size, read, told = at, bytearray(), 0, at, False
    for piece in source:
        *whole, rest = piece.split(b"\n")
        for row in whole:
            size += len(row)
            if not told:
                yield begin, (bytes(held) + row if held else row) if size <= limit else None
            begin, size, told = begin + size + 1, 0, False
            held.clear()
            if begin >= end:
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
            if read >= end:  # whatever follows begins in a later span
                break
    if size and not told:
        yield begin, bytes(held)


@register_reader("json")
def json_file(file: Path | Member, name: str, reading: Reading) -> JsonFile | JsonlFile:
    """The file as what it begins like."""
    source = JsonFile(file, name, reading)
    with suppress(BrokenFileError):  # told when it is read
        for piece in source.pieces():
            if begun := piece.removeprefix(BYTE_ORDER_MARK).lstrip(_BLANK.encode()):
                return JsonlFile(file, name, reading) if begun.startswith(b"{") else source
    return source


class JsonFile(RecordSource, FileSource):
    """An array of records, named by their number. What follows a fault of the syntax is left out."""

    def spans(self) -> list[Span]:
        return [WHOLE]

    def records(self, span: Span, faults: Faults, fields: Sequence[str] | None = None) -> Iterator[Record]:
        """At most twice ``max_record_bytes`` and a piece of the file are held."""
        number = 0
        try:
            for value in self._values(faults):
                if isinstance(value, dict):
                    yield Record(f"#{number}", value)
                else:
                    faults.add("bad_json", f"{self.name}#{number}", f"{self.where(f'#{number}')} is not an object")
                number += 1
        except BrokenFileError as error:
            faults.add(error.kind, f"{self.name}#{number}", f"{error}, after {number:,} records")
        self.tell_encoding(faults)

    def _values(self, faults: Faults) -> Iterator[object]:
        text = _Text(self._decoded(faults), self.place, self.reading.max_record_bytes)
        if text.next_sign() != "[":
            raise BrokenFileError("bad_json", f"'{self.file}' holds no array of records")
        text.at += 1
        if text.next_sign() != "]":
            yield text.value()
            while text.next_sign() == ",":
                text.at += 1
                yield text.value()
        if text.next_sign() != "]":
            raise text.fault("Expecting ',' delimiter" if text.next_sign() else "")
        text.at += 1
        if text.next_sign():
            raise text.fault("Extra data")

    def _decoded(self, faults: Faults) -> Iterator[str]:
        offset, cut = 0, b""  # a character's bytes ahead of the next piece
        for piece in self.pieces():
            raw = cut + (piece if offset else piece.removeprefix(BYTE_ORDER_MARK))
            offset += len(piece)
            try:
                text, n_decoded = codecs.utf_8_decode(raw)
            except UnicodeDecodeError as error:
                place = offset - len(raw) + error.start
                words = f"'{self.file}' is not UTF-8 text (byte 0x{raw[error.start]:02x} at offset {place})"
                if not faults.replaces:
                    raise BrokenFileError("not_utf8", words) from None
                faults.add("not_utf8", f"{self.name}@{place}", words)
                text, n_decoded = codecs.utf_8_decode(raw, "replace")
                if is_lost(text):
                    raise BrokenFileError("replaced", words) from None
            cut = raw[n_decoded:]
            yield text


class _Text:
    """What is held of a file's text, of which Python's own parser takes a value after another. It has no memory of
    where it stood: a value that is not whole is parsed again once twice as much is held."""

    def __init__(self, source: Iterator[str], place: str, most: int) -> None:
        self._source, self._place, self._most = source, place, most
        self.at, self._held = 0, ""
        self._broken: BrokenFileError | None = None
        self._parse = json.JSONDecoder().raw_decode

    def next_sign(self) -> str:
        """The first character from here on that is not blank; "" at the end."""
        while True:
            space = _SPACE.match(self._held, self.at)
            assert space is not None, "it matches nothing at all, too"
            self.at = space.end()
            if self.at < len(self._held):
                return self._held[self.at]
            if not self._more():
                return ""

    def value(self) -> object:
        """The one from here on; `BrokenFileError` if there is none, or it is too long."""
        self.next_sign()
        is_grown = False
        while True:
            try:
                value, end = self._parse(self._held, self.at)
                length = end - self.at
                problem, is_cut, ends = "", end + _LONGEST_WORD > len(self._held), False  # a number may go on
            except json.JSONDecodeError as error:
                ends = error.msg.startswith("Unterminated string") or error.pos >= len(self._held)
                problem, is_cut = error.msg, ends or error.pos + _LONGEST_WORD > len(self._held)
            except (ValueError, RecursionError) as error:  # a number with too many digits, brackets without end
                raise self.fault(str(error)) from None
            if is_cut and is_grown and len(self._held) - self.at > self._most:
                limit = f"data.max_record_bytes ({self._most:,})"
                raise BrokenFileError("too_long", f"'{self._place}' has a record that is longer than {limit}")
            if is_cut and self._more():
                is_grown = True
            elif problem:
                raise self.fault("" if ends else problem)
            else:
                self.at += length
                return value

    def fault(self, problem: str) -> BrokenFileError:
        """In which the text is no JSON; "" where it ends too early."""
        if problem:
            return BrokenFileError("bad_json", f"'{self._place}' is not JSON ({problem})")
        return BrokenFileError("cut_off", f"'{self._place}' is cut off: its JSON has no end")

    def _more(self) -> bool:
        """Whether there was more to hold: as much again as is held, at least a piece."""
        held = [self._held[self.at :]]
        size = len(held[0])
        try:
            for piece in self._source:
                held.append(piece)
                size -= len(piece)
                if size <= 0 and piece:
                    break
        except BrokenFileError as error:
            self._broken = error  # raised once what comes before it has been given out
        if len(held) == 1 and self._broken:
            raise self._broken
        self.at, self._held = 0, "".join(held)
        return len(held) > 1
