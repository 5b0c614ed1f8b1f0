"""Indexes of TensorFlow checkpoints whose checksums are right, whatever else is wrong with them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence

from slm.weights.tf_table import _FOOTER_BYTES, _MAGIC, _TRAILER_BYTES, _block_entries, _varint

Entries = Sequence[tuple[bytes, bytes]]


def table(*blocks: Entries) -> bytes:
    """A whole table of these blocks, in their order."""
    content, places = b"", []
    for entries in blocks:
        block = block_of(entries)
        places.append((entries[-1][0], varint(len(content)) + varint(len(block))))
        content += _with_trailer(block)
    index = block_of(places)
    footer = varint(0) * 2 + varint(len(content)) + varint(len(index))
    return content + _with_trailer(index) + footer.ljust(_FOOTER_BYTES - len(_MAGIC), b"\0") + _MAGIC


def block_of(entries: Entries, restarts: Sequence[int] = (0,)) -> bytes:
    """A block without its trailer."""
    content = b"".join(varint(0) + varint(len(key)) + varint(len(value)) + key + value for key, value in entries)
    return content + b"".join(number.to_bytes(4, "little") for number in (*restarts, len(restarts)))


def varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    digits = [number >> shift & 0x7F for shift in range(0, max(1, number.bit_length()), 7)]
    return bytes([*(digit | 0x80 for digit in digits[:-1]), digits[-1]])


def signed(content: bytes) -> bytes:
    """The table with all checksums right of blocks that can be found."""
    for start, size in _places(content):
        if start + size + _TRAILER_BYTES <= len(content) - _FOOTER_BYTES:
            end = start + size + 1
            content = content[:end] + _checksum(content[start:end]) + content[end + 4 :]
    return content


def _places(content: bytes) -> Iterable[tuple[int, int]]:
    with contextlib.suppress(ValueError):
        footer = content[-_FOOTER_BYTES:]
        start, size = _numbers(footer, 4)[2:]
        yield start, size
        for _, handle in _block_entries(content[start : start + size]):
            start, size = _numbers(handle, 2)
            yield start, size


def _numbers(data: bytes, count: int) -> list[int]:
    numbers, at = [], 0
    for _ in range(count):
        number, at = _varint(data, at)
        numbers.append(number)
    return numbers


def _with_trailer(block: bytes) -> bytes:
    return block + b"\0" + _checksum(block + b"\0")


def _checksum(data: bytes) -> bytes:
    """CRC-32C, turned and moved as LevelDB does, so that one of data that holds checksums is none of theirs."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC_OF_BYTE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8 & 0xFFFFFFFF).to_bytes(4, "little")


def _crcs_of_bytes() -> Iterator[int]:
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        yield crc


_CRC_OF_BYTE = tuple(_crcs_of_bytes())
