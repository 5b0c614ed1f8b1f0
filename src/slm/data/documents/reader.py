"""What every reader does: say in which spans a file can be read, and read one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from slm.data.config import Reading
from slm.data.documents.compression import is_compressed
from slm.data.documents.document import PART_SIZE, Document, in_parts
from slm.data.faults import Faults
from slm.files.unicode import is_unicode, with_replacements


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
    place: where it is, unique in its file: "@1024" (byte), "#7" (number, from 0).
    values: the fields.
    """

    place: str
    values: dict[str, Any]


class RecordReader(Reader):
    """A reader of files that hold records, of which one field is the text."""

    @abstractmethod
    def records(
        self, file: Path, name: str, span: Span, faults: Faults, fields: Sequence[str] | None = None
    ) -> Iterator[Record]:
        """The records of a span.

        Args:
            file, name, span, faults: as of `read`.
            fields: those that are wanted; others may be missing. None for all.
        """

    def where(self, file: Path, place: str) -> str:
        """A record for a message."""
        return f"record {place} of '{file}'"

    def too_long(self, file: Path, name: str, place: str, faults: Faults) -> None:
        """Count a record that is longer than ``max_record_bytes``; its arguments are as of `read` and `where`."""
        limit = f"data.max_record_bytes ({self.reading.max_record_bytes:,})"
        faults.add("too_long", name + place, lambda: f"{self.where(file, place)} is longer than {limit}")

    def read(self, file: Path, name: str, span: Span, faults: Faults) -> Iterator[Document]:
        field = self.reading.field
        for record in self.records(file, name, span, faults, [field]):
            where = partial(self.where, file, record.place)
            yield from text_of_record(record.values, field, f"{name}{record.place}", where, faults)


def text_of_record(
    values: Mapping[str, Any], field: str, name: str, where: Callable[[], str], faults: Faults
) -> Iterator[Document]:
    """The document in a record's `field`; none, and a fault counted, if there is no text in it."""
    text = values.get(field)
    if not isinstance(text, str):
        got = f"has {type(text).__name__} in the field '{field}'" if field in values else f"has no field '{field}'"
        has = ", ".join(map(repr, list(values)[:8]))
        faults.add("no_text", name, lambda: f"{where()} {got} (fields: {has})")
    elif not text:
        faults.note("empty", name)
    elif "\0" in text or not is_unicode(text):
        kind, found = ("nul", "NUL characters") if "\0" in text else ("not_utf8", "half a surrogate pair")
        faults.add(kind, name, lambda: f"{where()} holds {found}")
        if faults.replaces:
            yield from in_parts(name, with_replacements(text))
    else:
        yield from in_parts(name, text)


def byte_spans(file: Path, span_bytes: int) -> list[Span]:
    """Of a file that can be read from any place on; the last is the longest."""
    if is_compressed(file):
        return [WHOLE]
    size = file.stat().st_size if file.is_file() else 0
    starts = [i * span_bytes for i in range(max(1, size // span_bytes))]
    return [Span(start, end) for start, end in zip(starts, [*starts[1:], size], strict=True)]
