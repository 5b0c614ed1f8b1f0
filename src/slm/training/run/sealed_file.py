"""The checksum of a checkpoint file: written with it, at its end, and checked before anything of it is used.

A file of `torch.save` is a zip archive, and the last record of one may end in a comment. Ours is the SHA-256 of every
byte before it: one file holds both, a plain `torch.load` reads it, and a byte flipped or cut anywhere is found.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

_END_MARK = b"PK\x05\x06"  # of the end-of-central-directory record (APPNOTE.TXT 4.3.16)
_END_BYTES = 22  # of that record without a comment; its last two bytes are the comment's length
_LABEL = b"slm sha256 "
_SEAL_BYTES = len(_LABEL) + 64
_CHUNK = 1 << 20


class SealedWriter:
    """The file object that `torch.save` writes to, front to back: passes bytes on and adds them to the checksum.

    A write that fails raises nothing here, since torch would make another error of it: what comes after is dropped, and
    `seal` raises the first error.

    Args:
        out: a file opened for writing, at its beginning.

    Attributes:
        size: bytes given so far, whether the disk took them or not.
    """

    def __init__(self, out: BinaryIO) -> None:
        self.size = 0
        self._out = out
        self._sum = hashlib.sha256()
        self._tail = b""  # the last bytes so far, held back: they may be the end record
        self._error: OSError | None = None

    def write(self, data: bytes | memoryview) -> int:
        """Take `data`; the number of its bytes."""
        view = memoryview(data).cast("B")
        self.size += len(view)
        kept = max(0, len(view) - _END_BYTES)
        if kept:
            self._pass_on(self._tail)
            self._pass_on(view[:kept])
            self._tail = bytes(view[kept:])
        else:
            self._tail += bytes(view)
            self._pass_on(self._tail[:-_END_BYTES])
            self._tail = self._tail[-_END_BYTES:]
        return len(view)

    def flush(self) -> None:
        """Nothing: `seal` is the end."""

    def seal(self) -> None:
        """Write the archive's end and the checksum.

        Raises:
            OSError: a write failed, here or before.
        """
        assert _is_end(self._tail), "torch wrote no archive, or one with a comment"
        self._pass_on(self._tail[:-2] + _SEAL_BYTES.to_bytes(2, "little") + _LABEL)
        self._pass_on(self._sum.hexdigest().encode())
        if self._error is not None:
            raise self._error

    def _pass_on(self, data: bytes | memoryview) -> None:
        if self._error is not None:
            return
        try:
            for start in range(0, len(data), _CHUNK):  # in parts that the processor's cache holds for both
                part = data[start : start + _CHUNK]
                self._sum.update(part)
                while len(part):  # an unbuffered file may take some of it only
                    part = part[self._out.write(part) :]
        except OSError as error:
            self._error = error


def is_sealed(file: Path) -> bool:
    """Whether it ends as files with a checksum do, be that right or wrong; older versions wrote none."""
    with file.open("rb") as content:
        return _is_seal(_last_bytes(content, _SEAL_BYTES))


def fault_of(file: Path) -> str | None:
    """What is wrong with a checkpoint file in a few words, or None; read once as long as it stays the same."""
    try:
        found = file.stat()
        return _fault_at(file.absolute(), (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns))
    except OSError as error:
        return f"it cannot be read: {error.strerror}"


@lru_cache(maxsize=256)
def _fault_at(file: Path, identity: tuple[int, ...]) -> str | None:
    with file.open("rb") as content:
        return fault_in(content)


def fault_in(content: BinaryIO) -> str | None:
    """As `fault_of`, of an open file; left at its beginning.

    A file without a checksum, as older versions wrote it, is whole if its parts agree with the archive's own CRC-32s.

    Raises:
        OSError: it cannot be read.
    """
    end = _last_bytes(content, _END_BYTES + _SEAL_BYTES)
    try:
        if not end:
            return "it is empty"
        if _is_seal(end[-_SEAL_BYTES:]):
            matches = _digest(content, before=64) == end[-64:]
            return (
                _fault_of_archive(content, check_parts=False) if matches else "its content does not match its checksum"
            )
        if _is_end(end[-_END_BYTES:]):
            return _fault_of_archive(content, check_parts=True)
        return "its end is missing or damaged"
    finally:
        content.seek(0)


def _is_seal(end: bytes) -> bool:
    return end.startswith(_LABEL)


def _is_end(end: bytes) -> bool:
    """Of an archive without a comment."""
    return end.startswith(_END_MARK) and end.endswith(b"\0\0")


def _last_bytes(content: BinaryIO, count: int) -> bytes:
    size = content.seek(0, os.SEEK_END)
    content.seek(max(0, size - count))
    return content.read()


def _digest(content: BinaryIO, before: int) -> bytes:
    """SHA-256 in hex of all but the last `before` bytes."""
    left = content.seek(0, os.SEEK_END) - before
    content.seek(0)
    total, buffer = hashlib.sha256(), memoryview(bytearray(_CHUNK))
    while left > 0 and (count := content.readinto(buffer[: min(left, _CHUNK)])):  # type: ignore[attr-defined]
        total.update(buffer[:count])
        left -= count
    return total.hexdigest().encode()


def _fault_of_archive(content: BinaryIO, check_parts: bool) -> str | None:
    """Anybody can make a checksum, and a compressed part would still be a bomb; of parts, their own CRC-32s."""
    try:
        with zipfile.ZipFile(content) as archive:
            if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
                return "torch did not write it"
            part = archive.testzip() if check_parts else None
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
        return f"its archive is damaged: {error}"
    return f"its part '{part}' does not match its CRC-32" if part else None
