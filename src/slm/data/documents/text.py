"""Text files: one document a file, read in parts where it is long."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from slm.data.documents.compression import BYTE_ORDER_MARK, BrokenFileError, pieces
from slm.data.documents.document import SEARCHED, Document, cut_place
from slm.data.documents.reader import WHOLE, Reader, Span, byte_spans
from slm.data.faults import Faults
from slm.registry import register_reader

_BEFORE = 4  # bytes before a cut that are looked at: the longest character


@dataclass(frozen=True)
class _Part:
    raw: bytes
    offset: int
    begins: bool
    ends: bool


@register_reader("text")
class TextReader(Reader):
    """A file is cut near each multiple of `span_bytes`, at the same places whether it is compressed or not."""

    searched = SEARCHED

    def spans(self, file: Path) -> list[Span]:
        return byte_spans(file, self.span_bytes)

    def read(self, file: Path, name: str, span: Span, faults: Faults) -> Iterator[Document]:
        """The one document, or the part of it that lies in the span."""
        try:
            for part in self._stream(file) if span == WHOLE else self._span(file, span):
                yield from _document(part, file, name, faults)
        except BrokenFileError as error:
            words = str(error)
            faults.add(error.kind, name, lambda: words)

    def _span(self, file: Path, span: Span) -> Iterator[_Part]:
        size = file.stat().st_size if file.is_file() else 0
        start = self._cut_in_file(file, span.start) if span.start else 0
        end = self._cut_in_file(file, span.end) if span.end < size else size
        yield _Part(_bytes(file, start, end - start), start, begins=start == 0, ends=end == size)

    def _cut_in_file(self, file: Path, place: int) -> int:
        return place - _BEFORE + _cut(_bytes(file, place - _BEFORE, _BEFORE + self.searched), _BEFORE)

    def _stream(self, file: Path) -> Iterator[_Part]:
        """The parts of what is compressed; of a file that breaks off, all there is."""
        held, offset, broken = bytearray(), 0, None
        source = pieces(file)
        while True:
            try:
                piece = next(source, b"")
            except BrokenFileError as error:
                piece, broken = b"", error
            held += piece
            # a cut at k * span_bytes is made if the file has (k + 1) * span_bytes
            while offset + len(held) >= (target := (offset // self.span_bytes + 1) * self.span_bytes) + self.span_bytes:
                window = target - _BEFORE - offset
                cut = window + _cut(bytes(held[window : window + _BEFORE + self.searched]), _BEFORE)
                yield _Part(bytes(held[:cut]), offset, begins=offset == 0, ends=False)
                del held[:cut]
                offset += cut
            if not piece:
                break
        if held or broken is None:
            yield _Part(bytes(held), offset, begins=offset == 0, ends=True)
        if broken is not None:
            raise broken


def _bytes(file: Path, start: int, size: int) -> bytes:
    """At most `size` from `start` on."""
    found = bytearray()
    for piece in pieces(file, start):
        found += piece[: size - len(found)]
        if len(found) >= size:
            break
    return bytes(found)


def _cut(around: bytes, at: int) -> int:
    """Where in the bytes `around` to cut: at a good place from `at` on, never inside a character."""
    while at < len(around) and around[at] & 0xC0 == 0x80 and at < 2 * _BEFORE:
        at += 1
    before, after = (part.decode(errors="surrogateescape") for part in (around[:at], around[at:]))
    text = before + after
    return len(text[: cut_place(text, len(before), len(text))].encode(errors="surrogateescape"))


def _document(part: _Part, file: Path, name: str, faults: Faults) -> Iterator[Document]:
    text = _text(part, file, name, faults)
    whole = part.begins and part.ends
    if text == "" and whole:
        faults.note("empty", name)
    elif text is not None or not whole:  # a part that is left out still begins or ends its document
        yield Document(name, text or "", part.begins, part.ends)


def _text(part: _Part, file: Path, name: str, faults: Faults) -> str | None:
    """The part decoded; None, and a fault counted, if it is to be left out."""
    raw = part.raw.removeprefix(BYTE_ORDER_MARK) if part.begins else part.raw
    begin = part.offset + len(part.raw) - len(raw)
    if (nul := raw.find(b"\0")) >= 0:
        faults.add("nul", f"{name}@{begin + nul}", lambda: f"'{file}' is binary, not text (it holds NUL bytes)")
    try:
        if nul < 0:
            return raw.decode()
    except UnicodeDecodeError as error:
        offset = begin + error.start
        what = f"'{file}' is not UTF-8 text (byte 0x{raw[error.start]:02x} at offset {offset})"
        faults.add("not_utf8", f"{name}@{offset}", lambda: what)
    return raw.decode(errors="replace").replace("\0", "\ufffd") if faults.replaces else None
