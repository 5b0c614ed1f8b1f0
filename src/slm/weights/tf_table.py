"""The table that the index of a TensorFlow checkpoint is: keys and values in the order of the keys.

LevelDB's form (tensorflow/core/lib/io/table_format.txt), not compressed: blocks of entries, then an index block that
says where they lie, at the end a footer that says where the index block lies. TensorFlow verifies the checksums.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_MOST_BYTES = 1 << 20
"""The largest released GPT-2's 580 variables take 20 KB."""
_LONGEST_KEY = 256
"""An entry may repeat the start of the key before it: without an end, keys would take memory like their square."""
_MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
_FOOTER_BYTES = 48
_TRAILER_BYTES = 5
"""After each block: how it is compressed (0: it is not), and a checksum of four bytes."""
_LONGEST_VARINT = 10


def table_entries(file: Path) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of every entry; keys ascend, and no block is read twice.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no such table, or none of a checkpoint's size.
    """
    if not file.is_file():  # TensorFlow would take a file of its first format in its place, unchecked
        raise ValueError(f"{file.name} is missing")
    with file.open("rb") as content:
        table = content.read(_MOST_BYTES + 1)
    if len(table) > _MOST_BYTES:
        raise ValueError(f"{file.name} is longer than {_MOST_BYTES >> 10:,} KiB, which no index is")
    try:
        yield from _entries_of(table)
    except ValueError as error:
        raise ValueError(f"{file.name}: {error}") from None


def _entries_of(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    if len(table) < _FOOTER_BYTES or not table.endswith(_MAGIC):
        raise ValueError("it is cut short, or no index")
    blocks, footer = table[:-_FOOTER_BYTES], table[-_FOOTER_BYTES:]
    _, at = _varint(footer, 0)  # where a block lies that nobody reads
    _, at = _varint(footer, at)
    last, done = None, 0
    for _, handle in _block_entries(_block(blocks, footer, at)[0]):
        block, start, end = _block(blocks, handle, 0)
        if start < done:
            raise ValueError("blocks overlap")
        done = end
        for key, value in _block_entries(block):
            if last is not None and key <= last:
                raise ValueError("entries are not in order")
            last = key
            yield key, value


def _block(blocks: bytes, handle: bytes, at: int) -> tuple[bytes, int, int]:
    """The block whose offset and size stand at `at` of `handle`; and where it and its trailer begin and end."""
    start, at = _varint(handle, at)
    size, _ = _varint(handle, at)
    end = start + size + _TRAILER_BYTES
    if end > len(blocks):
        raise ValueError("a block would lie beyond the end")
    if blocks[start + size]:
        raise ValueError("a block is compressed, which no checkpoint's is")
    return blocks[start : start + size], start, end


def _block_entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """An entry is three numbers (bytes of the key that are the last key's, more bytes of it, bytes of the value), then
    the bytes; at the block's end stand the offsets of some entries that repeat nothing, to search among."""
    n_restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 * (n_restarts + 1)
    if end <= 0 or n_restarts == 0:
        raise ValueError("a block holds no entry")
    at, key, whole = 0, b"", set()
    while at < end:
        begin = at
        repeated, at = _varint(block, at)
        more, at = _varint(block, at)
        length, at = _varint(block, at)
        if repeated > len(key) or repeated + more > _LONGEST_KEY or at + more + length > end:
            raise ValueError("an entry's lengths are wrong")
        if repeated == 0:
            whole.add(begin)
        key = key[:repeated] + block[at : at + more]
        at += more + length
        yield key, block[at - length : at]
    restarts = {int.from_bytes(block[at : at + 4], "little") for at in range(end, len(block) - 4, 4)}
    if not restarts <= whole:
        raise ValueError("a place to search from is no entry's")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, seven bits a byte, the lowest first; and where it ends."""
    value = 0
    for place, byte in enumerate(data[at : at + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at + place + 1
    raise ValueError("a number has no end")
