"""What a corpus consists of: sources, of files or of records, which give documents span by span, long ones in parts."""

import codecs
import os
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from slm.data.config import AUTO, Reading
from slm.data.documents.compression import COMPRESSED, pieces
from slm.data.documents.encoding import UTF_8, as_utf8, encoding_of
from slm.data.documents.fields import longest_text, value_at
from slm.data.documents.member import Member, is_archive
from slm.data.faults import Faults
from slm.errors import UserError
from slm.files.reading import digest_of, is_unicode, with_replacements
from slm.registry import READERS

T = TypeVar("T")
PART_SIZE = 8 << 20
"""Bytes of a file, or characters of a record's text, that a part has at least; it has less than twice as many."""
SEARCHED = 1 << 16  # how far a good place to cut is looked for
_BY_ENDING = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet"}
_BY_ENDING |= {".csv": "csv", ".tsv": "csv", ".warc": "warc", ".wet": "warc"}
_BYTES = re.compile("[\udc80-\udcff]")  # as Python decodes what it cannot
_FEW_REPLACED = 4  # characters, or one in a hundred: more, and the text is in another encoding

# Tokenizers cut text into words before anything else, and no pattern in use joins a letter or a digit to white space
# that follows it (a mark may be joined to the line break behind it: OpenAI's cl100k_base does). So a text is cut
# between these; where none is near, between two characters, and a word there may be spelt otherwise than in the whole.
# A space first: vocabularies in the way of SentencePiece put one before every text that begins with none.
_PLACES = (re.compile(r"(?<=[^\W_]) "), re.compile(r"(?<=[^\W_])\s"))


@dataclass(frozen=True)
class Document:
    """One text, or a part of one that is too long to be held; parts have the same name, one after another."""

    name: str  # relative to the corpus, the same on every machine; in a file of many with the place: "a.jsonl@1024"
    text: str  # only a part that was left out has none
    begins: bool = True  # no later part of a document: what stands before every text belongs before it
    ends: bool = True  # no earlier part of a document: the end of text belongs after it


def cut_place(text: str, start: int, end: int) -> int:
    """The first good place to cut `text` in ``start .. end``; `start` if there is none."""
    return next((found.start() for place in _PLACES if (found := place.search(text, start, end))), start)


def in_parts(name: str, text: str, part_size: int = PART_SIZE, searched: int = SEARCHED) -> Iterator[Document]:
    """A document as one or, from twice `part_size` characters on, as several parts."""
    start = 0
    while len(text) - start >= 2 * part_size:
        cut = cut_place(text, start + part_size, start + part_size + min(searched, part_size // 2))
        yield Document(name, text[start:cut], begins=start == 0, ends=False)
        start = cut
    yield Document(name, text[start:] if start else text, begins=start == 0)


class Span(NamedTuple):
    """A part of a source that can be read on its own: bytes, rows or row groups from `start` up to `end`. Spans depend
    on the source alone, never on how many processes read them; together they are the whole of it."""

    start: int
    end: int


WHOLE = Span(0, -1)  # of what can only be read from its beginning to its end: compressed files, JSON arrays, streams


def grouped(items: Iterable[T], size_of: Callable[[T], int], enough: int) -> Iterator[list[T]]:
    """Adjacent items, in groups of the size `enough` or just above it; the last one may be smaller."""
    group: list[T] = []
    size = 0
    for item in items:
        group.append(item)
        size += size_of(item)
        if size >= enough:
            yield group
            group, size = [], 0
    if group:
        yield group


class Record(NamedTuple):
    """Fields, and where they are, unique in the source: "@1024" (byte), "#7" (number, from 0)."""

    place: str
    values: dict[str, Any]


class Source(ABC):
    """Something that gives documents, in bounded memory. It holds settings only, so it can be sent to processes."""

    name: str  # relative to the corpus, the same on every machine; what documents and places of faults begin with
    place: str  # where it lies, for messages
    form: str = ""  # what it was taken for: "text", "jsonl", …

    @abstractmethod
    def identity(self) -> Any:
        """JSON types that change when the content may have, told without reading it; `UserError` if it is missing."""

    def size(self) -> int | None:
        """Bytes, for the progress and for units of work of like size; None for what is no file."""
        return None

    def sha256(self) -> str | None:
        """Of its bytes; None for what is no file."""
        return None

    @abstractmethod
    def spans(self) -> list[Span]:
        """In order, at least one; what is damaged has one, and `read` says what is wrong."""

    @abstractmethod
    def read(self, span: Span, faults: Faults) -> Iterator[Document]:
        """The documents of one of the `spans`, in order; a long one in parts. None of them is without text but a part
        that was left out. `faults` is told of all that is not given out, and raises `UserError` where it refuses."""

    def records(self, span: Span, faults: Faults, fields: Sequence[str] | None = None) -> Iterator[Record]:
        """Records of a span with the wanted `fields`, None for all. `UserError` as of `read`, and for plain text."""
        raise UserError(
            f"data.path: '{self.place}' is read as plain text, and records are wanted; give .jsonl, .json or "
            ".parquet files, or say what it is (data.format=jsonl)"
        )

    def where(self, place: str) -> str:
        return f"record {place} of '{self.place}'"


class FileSource(Source):
    """A file. Its subclasses are the formats."""

    span_bytes = PART_SIZE  # about how many bytes of a file make a span

    def __init__(self, file: Path | Member, name: str, reading: Reading) -> None:
        self.file, self.name, self.reading = file, name, reading
        self.place = str(file)

    @property
    def path(self) -> Path:
        """Where it lies, of all but the files inside archives."""
        assert isinstance(self.file, Path)
        return self.file

    @cached_property
    def encoding(self) -> str:
        """By the name that Python's codecs have."""
        wanted = self.reading.encoding
        if wanted == AUTO:
            wanted = encoding_of(self.file, self.file.HEAD if isinstance(self.file, Member) else sys.maxsize)
        return codecs.lookup(wanted).name.removesuffix("-sig")

    def pieces(self, start: int = 0, size: int = sys.maxsize) -> Iterator[bytes]:
        """As `slm.data.documents.compression.pieces`, in UTF-8; with another encoding from the beginning alone."""
        if self.encoding == UTF_8:
            yield from pieces(self.file, start, size)
            return
        for piece in as_utf8(pieces(self.file), self.encoding):
            yield piece[:size]
            size -= len(piece)
            if size <= 0:
                break

    def tell_encoding(self, faults: Faults) -> None:
        """Where nobody has named it."""
        if self.reading.encoding == AUTO and self.encoding != UTF_8:
            faults.recognise(f"files read as {self.encoding}, by what they hold")

    def identity(self) -> Any:
        try:
            return file_identity(self.path)
        except OSError as error:
            raise UserError(f"data.path: cannot read '{self.file}' ({error.strerror})") from error

    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0  # it is missed when it is read

    def sha256(self) -> str:
        return digest_of(self.path)

    def spans(self) -> list[Span]:
        """Of bytes, where a format has no others; the last is the longest, so that none can be empty."""
        if self.file.suffix.lower() in COMPRESSED or self.encoding != UTF_8:
            return [WHOLE]
        size = self.size()
        starts = [i * self.span_bytes for i in range(max(1, size // self.span_bytes))]
        return [Span(start, end) for start, end in zip(starts, [*starts[1:], size], strict=True)]


class RecordSource(Source):
    """What holds records, of which one field is the text."""

    reading: Reading

    def read(self, span: Span, faults: Faults) -> Iterator[Document]:
        for record in self.records(span, faults, [self.reading.field]):
            yield from self._document(record, faults)

    def too_long(self, place: str, faults: Faults) -> None:
        """Count a record that is longer than ``max_record_bytes``."""
        limit = f"data.max_record_bytes ({self.reading.max_record_bytes:,})"
        faults.add("too_long", self.name + place, lambda: f"{self.where(place)} is longer than {limit}")

    def _document(self, record: Record, faults: Faults) -> Iterator[Document]:
        field, name, where = self.reading.field, self.name + record.place, partial(self.where, record.place)
        text = value_at(record.values, field, default=...)
        if not isinstance(text, str):
            got = f"has no field '{field}'" if text is ... else f"has {type(text).__name__} in the field '{field}'"
            has = ", ".join(map(repr, list(record.values)[:8]))
            longest = longest_text(record.values)
            offered = f"; its text is in data.field={longest}" if longest else ""
            faults.add("no_text", name, lambda: f"{where()} {got} (fields: {has}{offered})")
        elif not text:
            faults.note("empty", name)
        elif "\0" in text or not is_unicode(text):
            kind, found = ("nul", "NUL characters") if "\0" in text else ("not_utf8", "half a surrogate pair")
            found = "bytes that are not UTF-8" if _BYTES.search(text) else found
            faults.add(kind, name, lambda: f"{where()} holds {found}")
            if faults.replaces and (text := mended(with_replacements(text), name, faults)) is not None:
                yield from in_parts(name, text)
        else:
            yield from in_parts(name, text)


def decoded(raw: bytes, begin: int, name: str, what: str, faults: Faults, encoding: str = UTF_8) -> str | None:
    """The text of bytes that begin at `begin` of `what`; None, and a fault counted, if they are to be left out."""
    if (nul := raw.find(b"\0")) >= 0:
        faults.add("nul", f"{name}@{begin + nul}", f"{what} is binary, not text (it holds NUL bytes)")
    try:
        if nul < 0:
            return raw.decode()
    except UnicodeDecodeError as error:
        offset = begin + error.start
        byte = f"byte 0x{raw[error.start]:02x} " if encoding == UTF_8 else ""
        faults.add("not_utf8", f"{name}@{offset}", f"{what} is not {encoding.upper()} text ({byte}at offset {offset})")
    if not faults.replaces:
        return None
    return mended(raw.decode(errors="replace").replace("\0", "\ufffd"), name, faults)


def mended(text: str, name: str, faults: Faults) -> str | None:
    """A text with U+FFFD for what was none; None, and that counted, if it `is_lost`."""
    if not is_lost(text):
        return text
    faults.note("replaced", name)
    return None


def is_lost(text: str) -> bool:
    """More than a little of it was replaced."""
    return text.count("\ufffd") > max(_FEW_REPLACED, len(text) // 100)


def file_identity(file: Path) -> list[str | int]:
    """What changes when its content does, without reading it: place, size, time of the last change."""
    status = file.stat()
    return [str(file.resolve()), status.st_size, status.st_mtime_ns]


def file_sources(files: Sequence[Path], reading: Reading) -> list[FileSource]:
    """Each file by `file_source`, named relative to the folder that is common to all."""
    places = [Path(os.path.abspath(file)) for file in files]  # not resolved: a link is named by its own place
    root = os.path.commonpath([place.parent for place in places])
    return [
        file_source(file, place.relative_to(root).as_posix(), reading)
        for place, file in zip(places, files, strict=True)
    ]


def file_source(file: Path | Member, name: str, reading: Reading) -> FileSource:
    """An archive as such; else the format that ``data.format`` names or, with "auto", that of the ending before any
    of `COMPRESSED`."""
    form = "archive" if is_archive(file) else reading.format if reading.format != AUTO else _format_of(file)
    source = READERS.get(form)(file, name, reading)
    source.form = form
    return source


def _format_of(file: Path | Member) -> str:
    endings = [ending for ending in file.suffixes if ending.lower() not in COMPRESSED]
    return _BY_ENDING.get(endings[-1].lower() if endings else "", "text")
