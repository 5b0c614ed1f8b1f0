"""The bytes of a file, piece by piece, whether it is compressed (``.gz``, ``.zst``) or not."""

import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from slm.extras import require

COMPRESSED = (".gz", ".zst")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_PIECE = 1 << 20
_NO_BOMB = 64 << 20
_MOST_GROWTH = 250  # logs shrink to a hundredth, deflate gets to a thousandth, zstd much further


class BrokenFileError(Exception):
    """A file cannot be read (further); `kind` is of `slm.data.faults.KINDS`."""

    def __init__(self, kind: str, words: str) -> None:
        super().__init__(kind, words)  # all of them, so that it can be pickled
        self.kind, self.words = kind, words

    def __str__(self) -> str:
        return self.words


def pieces(file: Path, start: int = 0, size: int = sys.maxsize) -> Iterator[bytes]:
    """The content from (decompressed) byte `start` on, at most `size` bytes, a MiB or less at a time. Raises
    `BrokenFileError` if it cannot be opened, or its compressed content is damaged or ends too early; what comes before
    has been given out. `UserError`: what reads ``.zst`` is not installed."""
    try:
        with _opened(file) as stream:
            stream.seek(start)
            most, total = max(_NO_BOMB, _MOST_GROWTH * file.stat().st_size), start
            while piece := stream.read1(min(_PIECE, start + size - total)):  # `read` would lose what precedes a break
                yield piece
                total += len(piece)
                if total > most:
                    raise BrokenFileError("unreadable", f"'{file}' grows {_MOST_GROWTH}-fold and on; no text does")
    except EOFError:
        raise BrokenFileError("cut_off", f"'{file}' is cut off: its compressed content has no end") from None
    except _damage() as error:
        if words := getattr(error, "strerror", None):  # none of what is no gzip file
            raise BrokenFileError("unreadable", f"cannot read '{file}' ({words})") from None
        raise BrokenFileError("unreadable", f"'{file}' is damaged ({error})") from None


def _opened(file: Path) -> io.BufferedReader:
    ending = file.suffix.lower()
    opened: Any = gzip.open if ending == ".gz" else _zstd().open if ending == ".zst" else open
    return cast(io.BufferedReader, opened(file, "rb"))


def _zstd() -> Any:
    name = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"  # the same one for older versions
    return require(name, "data", "reading .zst files")


def _damage() -> tuple[type[Exception], ...]:
    """What decompressors raise; the module for ``.zst`` is asked only if it was loaded."""
    module = sys.modules.get("compression.zstd") or sys.modules.get("backports.zstd")
    return (OSError, zlib.error, *((module.ZstdError,) if module else ()))
