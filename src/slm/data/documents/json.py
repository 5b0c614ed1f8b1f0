"""JSON files: an array of records, read as a stream; or, as many ``.json`` files are, a record a line."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from pathlib import Path

import ijson

from slm.data.documents.compression import BrokenFileError, pieces
from slm.data.documents.half_pairs import HalfPairs
from slm.data.documents.jsonl import JsonlReader
from slm.data.documents.reader import WHOLE, Record, RecordReader, Span
from slm.data.faults import Faults
from slm.registry import register_reader

_BLANK = b" \t\r\n"
_MARK = b"\xef\xbb\xbf"


@register_reader("json")
class JsonReader(RecordReader):
    """Records are named by their number. What follows a fault of the syntax cannot be told apart and is left out."""

    def spans(self, file: Path) -> list[Span]:
        """An array can only be read from its beginning."""
        return self._lines.spans(file) if self._holds_lines(file) else [WHOLE]

    def records(
        self, file: Path, name: str, span: Span, faults: Faults, fields: Sequence[str] | None = None
    ) -> Iterator[Record]:
        """At most ``max_record_bytes`` and a piece of the file are held."""
        if self._holds_lines(file):
            yield from self._lines.records(file, name, span, faults, fields)
            return
        number = 0
        try:
            for value in self._values(file, name, faults):
                if isinstance(value, dict):
                    yield Record(f"#{number}", value)
                else:
                    self._no_object(file, name, number, faults)
                number += 1
        except BrokenFileError as error:
            words = f"{error}, after {number:,} records"
            faults.add(error.kind, f"{name}#{number}", lambda: words)

    def where(self, file: Path, place: str) -> str:
        """By its line or number."""
        return self._lines.where(file, place) if place.startswith("@") else super().where(file, place)

    @property
    def _lines(self) -> JsonlReader:
        return JsonlReader(self.reading)

    def _holds_lines(self, file: Path) -> bool:
        try:
            for piece in pieces(file):
                if begun := piece.removeprefix(_MARK).lstrip(_BLANK):
                    return begun.startswith(b"{")
        except BrokenFileError:
            pass  # told when it is read
        return False

    def _no_object(self, file: Path, name: str, number: int, faults: Faults) -> None:
        place = f"#{number}"
        faults.add("bad_json", name + place, lambda: f"{self.where(file, place)} is not an object")

    def _values(self, file: Path, name: str, faults: Faults) -> Iterator[object]:
        """What the array holds; raises `BrokenFileError` where it can be read no further."""
        found = ijson.sendable_list()
        parser = ijson.items_coro(found, "item", use_float=True)
        since = 0  # bytes since the last record was complete
        begun = False
        halves = HalfPairs()
        for piece in halves.marked(_utf8(file, name, faults)):
            if not begun and (start := piece.lstrip(_BLANK)):
                begun = True
                if not start.startswith(b"["):
                    raise BrokenFileError("bad_json", f"'{file}' holds no array of records")
            problem = _fed(parser, piece)
            since = 0 if found else since + len(piece)
            yield from map(halves.restored, found)
            found.clear()
            if problem:
                raise BrokenFileError("bad_json", f"'{file}' is not JSON ({problem})")
            if since > self.reading.max_record_bytes:
                limit = f"data.max_record_bytes ({self.reading.max_record_bytes:,})"
                raise BrokenFileError("too_long", f"'{file}' has a record that is longer than {limit}")
        try:
            parser.close()
        except ijson.JSONError:
            raise BrokenFileError("cut_off", f"'{file}' is cut off: its JSON has no end") from None


def _fed(parser: object, piece: bytes) -> str:
    """Hand the parser a piece; what is wrong with it, in a line, or ""."""
    try:
        parser.send(piece)  # type: ignore[attr-defined]
    except (ijson.JSONError, ValueError) as error:
        return str(error).splitlines()[0].strip()
    return ""


def _utf8(file: Path, name: str, faults: Faults) -> Iterator[bytes]:
    """The content, checked to be UTF-8; where `faults` wants it, with U+FFFD for what is not."""
    strict, lenient = (codecs.getincrementaldecoder("utf-8")(errors) for errors in ("strict", "replace"))
    offset = 0
    for piece in pieces(file):
        raw = piece.removeprefix(_MARK) if offset == 0 else piece
        pending = strict.getstate()
        try:
            text = strict.decode(raw)
        except UnicodeDecodeError as error:
            place = offset + len(piece) - len(raw) - len(pending[0]) + error.start
            words = f"'{file}' is not UTF-8 text (byte 0x{error.object[error.start]:02x} at offset {place})"
            if not faults.replaces:
                raise BrokenFileError("not_utf8", words) from None
            faults.add("not_utf8", f"{name}@{place}", lambda: words)  # noqa: B023
            lenient.setstate(pending)
            text = lenient.decode(raw)
            strict.setstate(lenient.getstate())
        yield text.encode()
        offset += len(piece)
