"""A file that is written beside its place and renamed into it, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

UNFINISHED = ".unfinished"


@contextmanager
def new_file(file: Path) -> Iterator[BinaryIO]:
    """A file to write; when the block ends without an error it becomes `file`, on the disk first, then by name.

    What a killed process leaves behind ends in `UNFINISHED`. Several processes may write the same file at a time.
    """
    partial = file.with_name(f"{file.name}.{os.getpid()}{UNFINISHED}")
    try:
        with partial.open("wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)
