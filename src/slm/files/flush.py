"""What was written, on the disk: after a power cut a file that was renamed without this may be there and empty."""

from __future__ import annotations

import os
from pathlib import Path


def flush_file(file: Path) -> None:
    """Its content."""
    _flush(file, os.O_RDWR)  # some systems flush only what is open for writing


def flush_folder(folder: Path) -> None:
    """The names in it, where folders can be flushed (not on Windows)."""
    if os.name == "posix":
        _flush(folder, os.O_RDONLY)


def _flush(place: Path, flags: int) -> None:
    handle = os.open(place, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
