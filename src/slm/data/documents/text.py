"""Text files: one document a file, or several between separators, read in parts where they are long."""

import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property

from slm.data.config import AUTO
from slm.data.documents.compression import BYTE_ORDER_MARK, BrokenFileError
from slm.data.documents.separator import LOOKED_AT, REACH, Division, Piece, Separator, separator_of, undivided
from slm.data.documents.source import SEARCHED, WHOLE, Document, FileSource, Span, cut_place, decoded
from slm.data.faults import Faults
from slm.registry import register_reader

_BEFORE = 4  # bytes before a cut that are looked at: the longest character


@register_reader("text")
class TextFile(FileSource):
    """It is cut near each multiple of `span_bytes`, at the same places whether it is compressed or not."""

    searched = SEARCHED

    def read(self, span: Span, faults: Faults) -> Iterator[Document]:
        separator, hint = self._form
        try:
            for part in self._parts(span, separator):
                for document in self._document(part, faults, separator):
                    if separator and document.begins:
                        faults.recognise(separator.told)
                    yield document
        except BrokenFileError as error:
            faults.add(error.kind, self.name, str(error))
        if span.start == 0:
            self.tell_encoding(faults)
            if hint:
                faults.recognise(hint)

    @cached_property
    def _form(self) -> tuple[Separator | None, str]:
        """What divides it; if nothing does, what might."""
        head = bytearray()
        with suppress(BrokenFileError):  # told when it is read
            for piece in self.pieces(size=LOOKED_AT):
                head += piece
        separator = separator_of(self.reading.separator, bytes(head))
        return separator, undivided(bytes(head)) if separator is None and self.reading.separator == AUTO else ""

    def _parts(self, span: Span, separator: Separator | None) -> Iterator[Piece]:
        if separator is None:
            return self._stream() if span == WHOLE else self._span(span)
        at, end = max(0, span.start - REACH), sys.maxsize if span == WHOLE else span.end
        division = Division(separator, span.start, end, self._cut_near, self.span_bytes)
        return division.pieces(self.pieces(at), at)

    def _span(self, span: Span) -> Iterator[Piece]:
        size = self.size()
        start = self._cut_in_file(span.start) if span.start else 0
        end = self._cut_in_file(span.end) if span.end < size else size
        yield Piece(b"".join(self.pieces(start, end - start)), start, begins=start == 0, ends=end == size)

    def _cut_in_file(self, place: int) -> int:
        start = place - _BEFORE
        return start + _cut(b"".join(self.pieces(start, _BEFORE + self.searched)), _BEFORE)

    def _stream(self) -> Iterator[Piece]:
        held, offset, step, broken = bytearray(), 0, self.span_bytes, None
        try:
            for piece in self.pieces():
                held += piece
                # a cut at k * step is made if the file has (k + 1) * step
                while offset + len(held) >= (target := (offset // step + 1) * step) + step:
                    cut = self._cut_near(held, target - offset)
                    yield Piece(bytes(held[:cut]), offset, begins=offset == 0, ends=False)
                    del held[:cut]
                    offset += cut
        except BrokenFileError as error:
            broken = error
        if held or broken is None:
            yield Piece(bytes(held), offset, begins=offset == 0, ends=True)
        if broken is not None:
            raise broken

    def _cut_near(self, held: bytes | bytearray, place: int) -> int:
        window = max(0, place - _BEFORE)
        return window + _cut(bytes(held[window : place + self.searched]), place - window)

    def _document(self, part: Piece, faults: Faults, separator: Separator | None) -> Iterator[Document]:
        name = f"{self.name}@{part.document}" if separator else self.name
        raw = part.raw.removeprefix(BYTE_ORDER_MARK) if part.offset == 0 else part.raw
        begin = part.offset + len(part.raw) - len(raw)
        text = decoded(raw, begin, self.name, f"'{self.file}'", faults, self.encoding)
        whole = part.begins and part.ends
        if text == "" and whole:
            faults.note("empty", name)
        elif text is not None or not whole:  # a part that is left out still begins or ends its document
            yield Document(name, text or "", part.begins, part.ends)


def _cut(around: bytes, at: int) -> int:
    """Where in the bytes `around` to cut: at a good place from `at` on, never inside a character."""
    while at < len(around) and around[at] & 0xC0 == 0x80 and at < 2 * _BEFORE:
        at += 1
    before, after = (part.decode(errors="surrogateescape") for part in (around[:at], around[at:]))
    text = before + after
    return len(text[: cut_place(text, len(before), len(text))].encode(errors="surrogateescape"))
