"""What the pages of a Parquet file hold, as far as it says how much one row takes in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from slm.data.documents.parquet_pages import Page
from slm.data.documents.parquet_thrift import unsigned
from slm.extras import require

_UNCOMPRESSED = 0
_CODECS = {1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4_raw"}
_BYTES_AT_ONCE = 1 << 16  # of levels of a bit


def longest_value(file: BinaryIO, page: Page, codec: int) -> int:
    """Bytes of the longest string in a dictionary page.

    Args:
        file: that the page is in.
        codec: of its column chunk.

    Raises:
        ValueError, LookupError, OSError, pyarrow.ArrowException: it is damaged, or packed in a way not known here.
    """
    data = _unpacked(file, page, codec)
    longest = at = 0
    for _ in range(page.values):
        length = int.from_bytes(data[at : at + 4], "little")
        longest = max(longest, length)
        at += 4 + length
        if at > len(data):
            raise ValueError("a dictionary ends too early")
    return longest


def longest_record(file: BinaryIO, pages: Iterable[Page], codec: int, highest: int) -> int:
    """Values of the longest record of a repeated column, which may go on from one page to the next.

    Args:
        file, codec: as of `longest_value`.
        pages: those of a column chunk.
        highest: the column's highest repetition level; 0 begins a record.

    Raises:
        ValueError, LookupError, OSError, pyarrow.ArrowException: as of `longest_value`.
    """
    longest = current = 0
    for page in pages:
        if page.is_dictionary:
            continue
        for begins, count in _runs(_levels(file, page, codec), page.values, highest.bit_length()):
            places = np.flatnonzero(begins)
            if len(places) == 0:
                current += count
            else:
                longest = max(longest, current + int(places[0]), int(np.diff(places).max(initial=1)))
                current = count - int(places[-1])
    return max(longest, current)


def _runs(levels: memoryview, count: int, width: int) -> Iterator[tuple[npt.NDArray[np.bool_], int]]:
    """Of `count` levels of `width` bits some after others: which of them are 0, and how many they are; of equal ones
    that follow one another the first stands for all.

    They are in runs, each either a level that is repeated or levels packed in groups of eight:
    https://parquet.apache.org/docs/file-format/data-pages/encodings/
    """
    at, width_in_bytes, step = 0, (width + 7) // 8, _BYTES_AT_ONCE * width
    begins: npt.NDArray[np.bool_]
    while count > 0:
        head, at = unsigned(levels, at)
        if head & 1:
            end = min(at + (head >> 1) * width, len(levels))
            for start in range(at, end, step):
                bits = np.unpackbits(np.frombuffer(levels[start : min(start + step, end)], np.uint8), bitorder="little")
                begins = np.logical_not(bits.reshape(-1, width)[:count].any(axis=1))
                yield begins, len(begins)
                count -= len(begins)
            at = end
        else:
            begins = np.array([not any(levels[at : at + width_in_bytes])])
            yield begins, 1 if begins[0] else min(head >> 1, count)
            count -= head >> 1
            at += width_in_bytes


def _levels(file: BinaryIO, page: Page, codec: int) -> memoryview:
    """The repetition levels of a page, which are the first thing in it."""
    if page.level_bytes is not None:
        return _packed(file, page)[: page.level_bytes]
    if not page.has_rle_levels:
        raise ValueError("levels in an encoding that is out of use")
    data = _unpacked(file, page, codec)
    return data[4 : 4 + int.from_bytes(data[:4], "little")]


def _unpacked(file: BinaryIO, page: Page, codec: int) -> memoryview:
    packed = _packed(file, page)
    if codec == _UNCOMPRESSED:
        return packed
    arrow: Any = require("pyarrow", "data", "reading Parquet files")
    content = arrow.decompress(packed, decompressed_size=page.size, codec=_CODECS[codec])
    return memoryview(content).cast("B")  # they are signed otherwise


def _packed(file: BinaryIO, page: Page) -> memoryview:
    file.seek(page.start)
    return memoryview(file.read(page.packed))
