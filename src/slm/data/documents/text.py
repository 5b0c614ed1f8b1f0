"""Text files: one document a file, read in parts where it is long."""

from collections.abc import Iterator
from typing import NamedTuple

from slm.data.documents.compression import BYTE_ORDER_MARK, BrokenFileError, pieces
from slm.data.documents.source import SEARCHED, WHOLE, Document, FileSource, Span, cut_place
from slm.data.faults import Faults
from slm.registry import register_reader

_BEFORE = 4  # bytes before a cut that are looked at: the longest character


class _Part(NamedTuple):
    raw: bytes
    offset: int
    begins: bool
    ends: bool


@register_reader("text")
class TextFile(FileSource):
    """It is cut near each multiple of `span_bytes`, at the same places whether it is compressed or not."""

    searched = SEARCHED

    def read(self, span: Span, faults: Faults) -> Iterator[Document]:
        try:
            for part in self._stream() if span == WHOLE else self._span(span):
                yield from self._document(part, faults)
        except BrokenFileError as error:
            faults.add(error.kind, self.name, str(error))

    def _span(self, span: Span) -> Iterator[_Part]:
        size = self.size()
        start = self._cut_in_file(span.start) if span.start else 0
        end = self._cut_in_file(span.end) if span.end < size else size
        yield _Part(b"".join(pieces(self.file, start, end - start)), start, begins=start == 0, ends=end == size)

    def _cut_in_file(self, place: int) -> int:
        start = place - _BEFORE
        return start + _cut(b"".join(pieces(self.file, start, _BEFORE + self.searched)), _BEFORE)

    def _stream(self) -> Iterator[_Part]:
        held, offset, step, broken = bytearray(), 0, self.span_bytes, None
        try:
            for piece in pieces(self.file):
                held += piece
                # a cut at k * step is made if the file has (k + 1) * step
                while offset + len(held) >= (target := (offset // step + 1) * step) + step:
                    window = target - _BEFORE - offset
                    cut = window + _cut(bytes(held[window : window + _BEFORE + self.searched]), _BEFORE)
                    yield _Part(bytes(held[:cut]), offset, begins=offset == 0, ends=False)
                    del held[:cut]
                    offset += cut
        except BrokenFileError as error:
            broken = error
        if held or broken is None:
            yield _Part(bytes(held), offset, begins=offset == 0, ends=True)
        if broken is not None:
            raise broken

    def _document(self, part: _Part, faults: Faults) -> Iterator[Document]:
        text = self._text(part, faults)
        whole = part.begins and part.ends
        if text == "" and whole:
            faults.note("empty", self.name)
        elif text is not None or not whole:  # a part that is left out still begins or ends its document
            yield Document(self.name, text or "", part.begins, part.ends)

    def _text(self, part: _Part, faults: Faults) -> str | None:
        """The part decoded; None, and a fault counted, if it is to be left out."""
        raw = part.raw.removeprefix(BYTE_ORDER_MARK) if part.begins else part.raw
        begin = part.offset + len(part.raw) - len(raw)
        if (nul := raw.find(b"\0")) >= 0:
            faults.add("nul", f"{self.name}@{begin + nul}", f"'{self.file}' is binary, not text (it holds NUL bytes)")
        try:
            if nul < 0:
                return raw.decode()
        except UnicodeDecodeError as error:
            offset = begin + error.start
            what = f"'{self.file}' is not UTF-8 text (byte 0x{raw[error.start]:02x} at offset {offset})"
            faults.add("not_utf8", f"{self.name}@{offset}", what)
        return raw.decode(errors="replace").replace("\0", "\ufffd") if faults.replaces else None


def _cut(around: bytes, at: int) -> int:
    """Where in the bytes `around` to cut: at a good place from `at` on, never inside a character."""
    while at < len(around) and around[at] & 0xC0 == 0x80 and at < 2 * _BEFORE:
        at += 1
    before, after = (part.decode(errors="surrogateescape") for part in (around[:at], around[at:]))
    text = before + after
    return len(text[: cut_place(text, len(before), len(text))].encode(errors="surrogateescape"))
