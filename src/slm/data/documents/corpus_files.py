"""What a corpus consists of: files, each with its name and its reader, or data sets that lie elsewhere."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slm.data.config import AUTO, Reading
from slm.data.documents.compression import COMPRESSED
from slm.data.documents.document import Document
from slm.data.documents.reader import Reader, Record, RecordReader, Span
from slm.data.faults import Faults
from slm.errors import UserError
from slm.fetch.download import digest_of
from slm.registry import READERS

_BY_ENDING = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet"}


class Source(ABC):
    """Something that gives documents, span by span. It can be sent to other processes.

    Attributes:
        name: relative to the corpus, so that it is the same on every machine.
    """

    name: str

    @property
    @abstractmethod
    def place(self) -> str:
        """Where it lies, for messages."""

    @abstractmethod
    def identity(self) -> Any:
        """JSON types that change when the content may have changed; told without reading it.

        Raises:
            UserError: it is not there.
        """

    def size(self) -> int | None:
        """Bytes, for the progress and for units of work of like size; None for what is no file."""
        return None

    def sha256(self) -> str | None:
        """Of its bytes; None for what is no file."""
        return None

    @abstractmethod
    def spans(self) -> list[Span]:
        """See `Reader.spans`."""

    @abstractmethod
    def read(self, span: Span, faults: Faults) -> Iterator[Document]:
        """See `Reader.read`."""

    @abstractmethod
    def records(self, span: Span, faults: Faults) -> Iterator[Record]:
        """The records of a span with all their fields.

        Raises:
            UserError: it holds plain text.
        """


@dataclass(frozen=True)
class FileSource(Source):
    """A file and what reads it."""

    file: Path
    name: str
    reader: Reader

    @property
    def place(self) -> str:
        return str(self.file)

    def identity(self) -> Any:
        try:
            return file_identity(self.file)
        except OSError as error:
            raise UserError(f"data.path: cannot read '{self.file}' ({error.strerror})") from error

    def size(self) -> int:
        return self.file.stat().st_size

    def sha256(self) -> str:
        return digest_of(self.file)

    def spans(self) -> list[Span]:
        return self.reader.spans(self.file)

    def read(self, span: Span, faults: Faults) -> Iterator[Document]:
        return self.reader.read(self.file, self.name, span, faults)

    def records(self, span: Span, faults: Faults) -> Iterator[Record]:
        if not isinstance(self.reader, RecordReader):
            raise UserError(
                f"data.path: '{self.file}' is read as plain text, and records are wanted; give .jsonl, .json or "
                ".parquet files, or say what it is (data.format=jsonl)"
            )
        return self.reader.records(self.file, self.name, span, faults)


def file_identity(file: Path) -> list[str | int]:
    """What changes when its content does, without reading it: place, size, time of the last change."""
    status = file.stat()
    return [str(file.resolve()), status.st_size, status.st_mtime_ns]


def file_sources(files: Sequence[Path], reading: Reading) -> list[Source]:
    """Each file with its name in the corpus and its reader."""
    places = [Path(os.path.abspath(file)) for file in files]  # not resolved: a link is named by its own place
    root = os.path.commonpath([place.parent for place in places])
    return [
        FileSource(file, place.relative_to(root).as_posix(), reader_of(file, reading))
        for place, file in zip(places, files, strict=True)
    ]


def reader_of(file: Path, reading: Reading) -> Reader:
    """The reader that ``data.format`` names or, with "auto", that of the ending before any ``.gz`` or ``.zst``."""
    endings = [ending for ending in file.suffixes if ending.lower() not in COMPRESSED]
    by_ending = _BY_ENDING.get(endings[-1].lower() if endings else "", "text")
    reader: Reader = READERS.get(by_ending if reading.format == AUTO else reading.format)(reading)
    return reader


def described(sources: Sequence[Source]) -> str:
    """For a message: the one name, or the first and how many there are."""
    first = f"'{sources[0].place}'"
    return first if len(sources) == 1 else f"{first} and {len(sources) - 1:,} more"
