"""Where the pages of a Parquet file lie, and what their headers declare: told before Arrow takes the memory for it.

Arrow itself tells it of whole files only: of damaged ones some properties of its metadata end the process. Of the
format: https://github.com/apache/parquet-format, ``parquet.thrift``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from slm.data.documents.parquet_thrift import LIST, Thrift

_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3
_ABOUT = {_DATA: 5, _DICTIONARY: 7, _DATA_V2: 8}
_FIRST_READ, _LONGEST_HEADER = 512, 16 << 20  # the latter is Arrow's limit
_PADDING = 100  # an old writer counted a chunk so much too short; Arrow reads on
_RLE = 3
_TAIL = 8


@dataclass(frozen=True, slots=True)
class Chunk:
    """A column of a row group.

    Attributes:
        kind, codec: numbers of the format's.
        values: nulls among them.
        packed: bytes in the file.
        start: byte at which its first page begins.
    """

    kind: int
    codec: int
    values: int
    packed: int
    start: int


@dataclass(frozen=True, slots=True)
class Page:
    """Attributes:
    start: byte at which its content begins.
    packed: bytes in the file.
    size: bytes decompressed, as declared.
    values: as declared, nulls among them.
    encoding: of its values.
    is_dictionary: it holds the values that the indices of other pages are of.
    level_bytes: of uncompressed repetition levels at its start (version 2); None if they are compressed with the rest.
    has_rle_levels: repetition levels are run-length encoded; only very old ones are not.
    """

    start: int
    packed: int
    size: int
    values: int
    encoding: int
    is_dictionary: bool
    level_bytes: int | None
    has_rle_levels: bool

    @property
    def most_bytes(self) -> int:
        """In memory: the declared size means nothing where nothing is packed."""
        return max(self.size, self.packed)


def chunks_of(file: Path) -> list[list[Chunk]]:
    """The columns of each row group, as the file's last bytes say.

    Raises:
        ValueError: they are damaged.
        OSError: it cannot be read.
    """
    status = file.stat()
    return _chunks_of(file, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1)  # a file is read in many spans
def _chunks_of(file: Path, size: int, time: int) -> list[list[Chunk]]:
    with file.open("rb") as content:
        content.seek(max(0, size - _TAIL))
        length = int.from_bytes(content.read(4), "little")
        content.seek(max(0, size - _TAIL - length))
        footer = Thrift(content.read(length))
    try:
        for number, kind in footer.fields():
            if (number, kind) == (4, LIST):
                return [_group(footer) for _ in footer.items()]
            footer.skip(kind)
    except IndexError:
        raise ValueError("its metadata end too early") from None
    return []


def _group(footer: Thrift) -> list[Chunk]:
    chunks = []
    for number, kind in footer.fields():
        if (number, kind) == (1, LIST):
            chunks = [_chunk(footer) for _ in footer.items()]
        else:
            footer.skip(kind)
    return chunks


def _chunk(footer: Thrift) -> Chunk:
    about = _inner(footer.struct(), 3)
    data, dictionary = _count(about, 9), _count(about, 11)
    return Chunk(
        kind=_count(about, 1),
        codec=_count(about, 4),
        values=_count(about, 5),
        packed=_count(about, 7),
        start=dictionary if 0 < dictionary < data else data,
    )


def pages_of(file: BinaryIO, chunk: Chunk) -> Iterator[Page]:
    """The pages that Arrow would read, in order.

    Raises:
        ValueError: a header is damaged, or a page is longer than what is left of its chunk.
    """
    at, left = chunk.start, chunk.values
    end = min(at + chunk.packed + _PADDING, file.seek(0, 2))
    while left > 0 and 0 <= at < end:
        header, at = _header(file, at, end)
        packed = _count(header, 3)
        if packed > end - at:
            raise ValueError(f"a page of {packed:,} bytes, where {end - at:,} are left")
        kind = _count(header, 1)
        if kind in _ABOUT:
            page = _page(kind, at, header)
            yield page
            left -= 0 if page.is_dictionary else page.values
        at += packed


def _header(file: BinaryIO, at: int, end: int) -> tuple[dict[int, Any], int]:
    """The fields of the header at byte `at`, and the byte behind it."""
    length = _FIRST_READ
    while True:
        file.seek(at)
        header = Thrift(file.read(min(length, end - at)))
        try:
            return header.struct(), at + header.at
        except IndexError:
            if length >= min(_LONGEST_HEADER, end - at):
                raise ValueError("a page's header has no end") from None
            length *= 8


def _page(kind: int, at: int, header: dict[int, Any]) -> Page:
    about = _inner(header, _ABOUT[kind])
    return Page(
        start=at,
        packed=_count(header, 3),
        size=_count(header, 2),
        values=_count(about, 1),
        encoding=_count(about, 4 if kind == _DATA_V2 else 2),
        is_dictionary=kind == _DICTIONARY,
        level_bytes=_count(about, 6) if kind == _DATA_V2 else None,
        has_rle_levels=kind == _DATA_V2 or about.get(4) == _RLE,
    )


def _inner(fields: dict[int, Any], number: int) -> dict[int, Any]:
    found = fields.get(number)
    return found if isinstance(found, dict) else {}


def _count(fields: dict[int, Any], number: int) -> int:
    value = fields.get(number, 0)
    if not isinstance(value, int) or value < 0:
        raise ValueError("its metadata are damaged")
    return value
