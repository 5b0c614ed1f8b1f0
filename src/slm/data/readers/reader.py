"""What every reader does: say in which spans a file can be read, and read one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slm.data.documents import Document
from slm.data.faults import Faults
from slm.data.parts import PART_SIZE, in_parts
from slm.data.readers.reading import Reading


@dataclass(frozen=True)
class Span:
    """A part of a file that can be read on its own: bytes, rows or row groups from `start` up to `end`.

    Spans depend on the file alone, never on how many processes read them; together they are the whole file.
    """

    start: int
    end: int


WHOLE = Span(0, -1)
"""Of what can only be read from its beginning to its end: compressed files, JSON arrays, streams."""


class Reader(ABC):
    """Reads files of one format in bounded memory. It holds settings only, so it can be sent to other processes.

    Attributes:
        reading: field, limits.
        span_bytes: about how many bytes of a file make a span.
    """

    span_bytes = PART_SIZE

    def __init__(self, reading: Reading) -> None:
        self.reading = reading

    @abstractmethod
    def spans(self, file: Path) -> list[Span]:
        """The spans of `file`, in order, at least one; a damaged file has one, and `read` says what is wrong."""

    @abstractmethod
    def read(self, file: Path, name: str, span: Span, faults: Faults) -> Iterator[Document]:
        """The documents of a span, in order; a long one in parts. None of them is without text but a part that
        was left out.

        Args:
            file: where it lies.
            name: what it is called in the corpus; names of documents and places of faults begin with it.
            span: one of `spans`.
            faults: told of all that is not given out.

        Raises:
            UserError: a fault, where `faults` refuses them.
        """


@dataclass(frozen=True)
class Record:
    """Attributes:
    place: where it is, unique in its file: "@1024" (byte), "#7" (number).
    values: the fields.
    """

    place: str
    values: dict[str, Any]


class RecordReader(Reader):
    """A reader of files that hold records, of which one field is the text."""

    @abstractmethod
    def records(self, file: Path, name: str, span: Span, faults: Faults) -> Iterator[Record]:
        """The records of a span, all fields; arguments as of `read`."""

    def read(self, file: Path, name: str, span: Span, faults: Faults) -> Iterator[Document]:
        """The text of each record."""
        for record in self.records(file, name, span, faults):
            place = f"{name}{record.place}"
            text = checked_text(record.values, self.reading.field, file, place, record.place, faults)
            if text:
                yield from in_parts(place, text)


def checked_text(values: dict[str, Any], field: str, file: Path, place: str, within: str, faults: Faults) -> str | None:
    """The text in a record's `field`; None or "", and a fault counted, if there is none or it is no text."""
    text = values.get(field)
    where = f"the record {within} of '{file}'"
    if not isinstance(text, str):
        got = f"has {type(text).__name__} in the field '{field}'" if field in values else f"has no field '{field}'"
        has = ", ".join(map(repr, list(values)[:8]))
        faults.add("no_text", place, lambda: f"{where} {got} (fields: {has})")
        return None
    if not text:
        faults.add_empty(place)
    elif "\0" in text:
        faults.add("nul", place, lambda: f"{where} holds NUL characters")
        return text.replace("\0", "\ufffd") if faults.replaces else None
    elif not _is_unicode(text):
        faults.add("not_utf8", place, lambda: f"{where} holds half a surrogate pair")
        return text.encode(errors="surrogatepass").decode(errors="replace") if faults.replaces else None
    return text


def _is_unicode(text: str) -> bool:
    """JSON can spell half a pair of surrogates, which is no character and has no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
