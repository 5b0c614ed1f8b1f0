"""A file inside an archive."""

import io
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

from slm.data.documents.compression import COMPRESSED, OF_ARCHIVES, BrokenFileError, damages

_ARCHIVES = (".zip", ".tar", *OF_ARCHIVES)


def is_archive(file: "Path | Member") -> bool:
    """Told by the ending: ``.zip``, or ``.tar`` with any of `COMPRESSED`."""
    endings = [ending.lower() for ending in file.suffixes[-2:]]
    return bool(endings) and (endings[-1] in _ARCHIVES or (endings[0] == ".tar" and endings[-1] in COMPRESSED))


class Member:
    """A file of an archive, read as the archive is: from its beginning to its end, once; what is within its first
    `HEAD` bytes can be looked at before. `size` is what it takes in the archive."""

    HEAD = 1 << 20

    def __init__(self, place: str, name: str, size: int, stream: Any) -> None:
        self.name, self._place, self._size, self._rest = name, place, size, stream
        path = PurePosixPath(name)
        self.suffix, self.suffixes, self.is_hidden = path.suffix, path.suffixes, _is_hidden(path)
        self.head = b""
        self._reader: object = None
        self._error: Exception | None = None
        self._has_more = True
        try:
            while self._has_more and len(self.head) < self.HEAD:
                piece = stream.read1(self.HEAD - len(self.head))
                self.head += piece
                self._has_more = bool(piece)
        except damages() as error:
            self._error = error

    def __str__(self) -> str:
        return self._place

    def stat(self) -> Any:
        return SimpleNamespace(st_size=self._size)

    def open(self, mode: Any) -> io.BufferedReader:
        return io.BufferedReader(_Reading(self))

    def read_on(self, reader: object, size: int) -> bytes:
        """Some of what follows the head, for one reader alone."""
        if self._error is not None:
            raise self._error
        if not self._has_more:
            return b""
        if self._reader not in (None, reader):
            raise BrokenFileError("unreadable", f"'{self}' cannot be read twice, as its form needs; unpack it")
        self._reader = reader
        try:
            return self._rest.read1(size)
        except Exception as error:
            self._error = error
            raise

    @property
    def failed(self) -> bool:
        """It broke off."""
        return self._error is not None


class _Reading(io.RawIOBase):
    def __init__(self, member: Member) -> None:
        self._member, self._at = member, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._member.head[self._at : self._at + len(buffer)] or self._member.read_on(self, len(buffer))
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


def _is_hidden(path: PurePosixPath) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts if part != "..")
