"""Files and folders that are written beside their place and renamed into it: whole or not at all."""

import os
import secrets
import shutil
import tempfile
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
    partial = file.with_name(f"{file.name}.{secrets.token_hex(4)}{UNFINISHED}")
    try:
        with partial.open("xb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to fill; when the block ends without an error it becomes `folder`, and an older one goes."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        yield partial
        partial.chmod(0o755)  # a temporary folder is its owner's alone
        retired = None
        if folder.exists():
            retired = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.old."))
            os.replace(folder, retired / folder.name)
        os.replace(partial, folder)
        if retired:
            shutil.rmtree(retired)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def flush_file(file: Path) -> None:
    """Its content, onto the disk: after a power cut a file that was renamed without this may be there and empty."""
    with file.open("rb+") as content:  # some systems flush only what is open for writing
        os.fsync(content.fileno())


def flush_folder(folder: Path) -> None:
    """The names in it, where folders can be flushed (not on Windows)."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
