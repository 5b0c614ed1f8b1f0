"""Thrift's compact protocol, in which the metadata of Parquet files are: read piece by piece.

https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

LIST, STRUCT = 9, 12
_BOOLS = (1, 2)
_BITS = {4: 16, 5: 32, 6: 64}
_BYTES = {1: 1, 2: 1, 3: 1, 7: 8, 13: 16}
_BINARY, _SET = 8, 10
_DEEPEST = 32


def unsigned(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """The number at byte `at`, seven bits a byte, and the byte behind it.

    Raises:
        IndexError: the data end before it does.
        ValueError: it has more than 64 bits.
    """
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number has no end")


class Thrift:
    """Who reads takes or skips what `fields` and `items` announce, one after another.

    What readers may understand otherwise than others do (a field that comes twice, a number with too many bits) is
    refused, so that none is given what was not looked at.

    Attributes:
        data: the bytes; may end anywhere, which raises IndexError.
        at: where the next one is read.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def fields(self) -> Iterator[tuple[int, int]]:
        """Number and kind of each field of a struct.

        Raises:
            ValueError: they are damaged; as of all that follow.
        """
        number, seen = 0, set()
        while head := self.data[self.at]:
            self.at += 1
            number = number + (head >> 4) if head >> 4 else self.number(4)
            if number in seen or not 0 < number < 1 << 15:
                raise ValueError("its fields are damaged")
            seen.add(number)
            yield number, head & 15
        self.at += 1

    def items(self) -> Iterator[int]:
        """Kind of each item of a list."""
        head = self.data[self.at]
        self.at += 1
        count = head >> 4
        if count == 15:
            count, self.at = unsigned(self.data, self.at)
        for _ in range(count):
            yield head & 15

    def number(self, kind: int) -> int:
        """An integer of one of its kinds."""
        value, self.at = unsigned(self.data, self.at)
        if value >> _BITS[kind]:
            raise ValueError("a number is too large")
        return value >> 1 ^ -(value & 1)

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """The fields of a struct that are integers or structs in turn; others are skipped."""
        found: dict[int, Any] = {}
        for number, kind in self.fields():
            if kind in _BITS:
                found[number] = self.number(kind)
            elif kind == STRUCT and depth < _DEEPEST:
                found[number] = self.struct(depth + 1)
            else:
                self.skip(kind)
        return found

    def skip(self, kind: int) -> None:
        """The value of a field."""
        if kind not in _BOOLS:  # which are told by their kind alone
            self._skip_item(kind, 0)

    def _skip_item(self, kind: int, depth: int) -> None:
        if depth > _DEEPEST:
            raise ValueError("it is nested too deeply")
        if kind in _BITS:
            _, self.at = unsigned(self.data, self.at)
        elif kind in _BYTES:
            self.at += _BYTES[kind]
        elif kind == _BINARY:
            length, self.at = unsigned(self.data, self.at)
            self.at += length
        elif kind == STRUCT:
            for _, inner in self.fields():
                if inner not in _BOOLS:
                    self._skip_item(inner, depth + 1)
        elif kind in (LIST, _SET):
            for item in self.items():
                self._skip_item(item, depth + 1)
                self.data[self.at]  # however long a list is said to be, it ends before the data do
        else:
            raise ValueError(f"there is no kind {kind}")
