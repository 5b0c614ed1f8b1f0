"""The bytes of a file, piece by piece, whether it is compressed (``.gz``, ``.bz2``, ``.xz``, ``.zst``) or not."""

import bz2
import gzip
import io
import lzma
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Protocol

from slm.extras import require

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
OF_ARCHIVES = {".tgz": ".gz", ".tbz2": ".bz2", ".txz": ".xz"}  # of a tar and what compresses it in one
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_PIECE = 1 << 20
_NO_BOMB = 64 << 20
_MOST_GROWTH = 250  # logs shrink to a hundredth, deflate gets to a thousandth, zstd much further
_LONGEST_WINDOW = 31  # bits: what --long=31 wants to look back to; held are the bytes that there are, see `_NO_BOMB`


class BrokenFileError(Exception):
    """A file cannot be read (further); `kind` is of `slm.data.faults.KINDS`."""

    def __init__(self, kind: str, words: str) -> None:
        super().__init__(kind, words)  # all of them, so that it can be pickled
        self.kind, self.words = kind, words

    def __str__(self) -> str:
        return self.words


class Content(Protocol):
    """What bytes can be read of: a path, or a file inside an archive."""

    @property
    def suffix(self) -> str: ...

    @property
    def suffixes(self) -> list[str]: ...

    def open(self, mode: Any) -> Any: ...

    def stat(self) -> Any: ...


def pieces(file: Content, start: int = 0, size: int = sys.maxsize) -> Iterator[bytes]:
    """The content from (decompressed) byte `start` on, at most `size` bytes, a MiB or less at a time. Raises
    `BrokenFileError` if it cannot be opened, or its compressed content is damaged or ends too early; what comes before
    has been given out. `UserError`: what reads ``.zst`` is not installed."""
    try:
        with ExitStack() as stack:
            stream = stack.enter_context(file.open("rb"))
            if opened := _opener(file.suffix.lower()):
                stream = stack.enter_context(opened(stream))
            if start:
                stream.seek(start)
            most, total = max(_NO_BOMB, _MOST_GROWTH * file.stat().st_size), start
            while piece := stream.read1(min(_PIECE, start + size - total)):  # `read` would lose what precedes a break
                yield piece
                total += len(piece)
                if total > most:
                    raise BrokenFileError("unreadable", f"'{file}' grows {_MOST_GROWTH}-fold and on; no text does")
    except damages() as error:
        raise broken(file, error) from None


def broken(file: object, error: Exception) -> BrokenFileError:
    """What one of `damages` says of the file."""
    if isinstance(error, BrokenFileError):
        return error
    if isinstance(error, EOFError):
        return BrokenFileError("cut_off", f"'{file}' is cut off: its compressed content has no end")
    if words := getattr(error, "strerror", None):  # none of what is no gzip file
        return BrokenFileError("unreadable", f"cannot read '{file}' ({words})")
    if "not enough memory" in str(error):
        gib = (1 << _LONGEST_WINDOW) >> 30
        words = f"'{file}' looks back up to {gib} GiB (zstd --long), for which there is no memory; unpack it (zstd -d)"
        return BrokenFileError("unreadable", words)
    return BrokenFileError("unreadable", f"'{file}' is damaged ({error})")


def damages() -> tuple[type[Exception], ...]:
    """What the disk, decompressors and archives raise; the module for ``.zst`` is asked only if it was loaded."""
    module = sys.modules.get("compression.zstd") or sys.modules.get("backports.zstd")
    of_archives = (zipfile.BadZipFile, tarfile.TarError, RuntimeError)  # the last: a password, an odd way to compress
    of_zstd = (module.ZstdError,) if module else ()
    return (BrokenFileError, EOFError, OSError, zlib.error, lzma.LZMAError, *of_archives, *of_zstd)


class PiecesFile(io.RawIOBase):
    """Pieces as a file that is read from its beginning to its end."""

    def __init__(self, source: Iterator[bytes]) -> None:
        self._source, self._held = source, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._held = self._held or next(self._source, b"")
        size = min(len(buffer), len(self._held))
        buffer[:size], self._held = self._held[:size], self._held[size:]
        return size


def _opener(ending: str) -> Any:
    known = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": _zstd_open}
    return known.get(OF_ARCHIVES.get(ending, ending))


def _zstd_open(stream: Any) -> Any:
    zstd = _zstd()
    return zstd.open(stream, options={zstd.DecompressionParameter.window_log_max: _LONGEST_WINDOW})


def _zstd() -> Any:
    name = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"  # the same one for older versions
    return require(name, "data", "reading .zst files")
