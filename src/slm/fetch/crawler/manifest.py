"""The record of what was fetched into a folder: ``manifest.json``, an array with a line for each file."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from slm.errors import UserError

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Entry:
    """Where a file comes from, and what it was when it came.

    Attributes:
        file: its name in the folder.
        url: the address asked.
        final_url: the address it came from if a redirect led there, without its query, where signatures stand; or None.
        time: when it came, UTC, ISO 8601.
        size: bytes.
        sha256: hex digest.
    """

    file: str
    url: str
    final_url: str | None
    time: str
    size: int
    sha256: str

    def line(self) -> dict[str, Any]:
        """Plain types, without what does not apply."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def recorded(folder: Path, file: str) -> dict[str, Any] | None:
    """The line about `file`, or None if there is none.

    Raises:
        UserError: the manifest is damaged.
    """
    return next((line for line in _read(folder) if line.get("file") == file), None)


@contextlib.contextmanager
def recording(folder: Path, entry: Entry) -> Iterator[None]:
    """Put the line of `entry` in place of an older one about the same file, once the block has put the file there.

    The new manifest is on the disk before the block begins, so that a full disk is found out ahead of it; it gets its
    name after the block, if that raises nothing. Another process that has a line to add waits.

    Raises:
        UserError: the manifest is damaged.
        OSError: it cannot be written.
    """
    lock = folder / f".{MANIFEST}.lock"
    with FileLock(lock):
        new = None
        try:
            lines = [line for line in _read(folder) if line.get("file") != entry.file]
            new = _written(folder, [*lines, entry.line()])
            yield
            os.replace(new, folder / MANIFEST)
        finally:
            if new is not None:
                new.unlink(missing_ok=True)
            lock.unlink(missing_ok=True)


def _read(folder: Path) -> list[dict[str, Any]]:
    file = folder / MANIFEST
    try:
        lines = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be read ({error}); mend it or move it away") from None
    if not isinstance(lines, list) or not all(isinstance(line, dict) for line in lines):
        raise UserError(f"{file} is not an array of objects; mend it or move it away")
    return lines


def _written(folder: Path, lines: list[dict[str, Any]]) -> Path:
    """A file beside the manifest that holds `lines`, one a line, safe on the disk."""
    handle, name = tempfile.mkstemp(dir=folder, prefix=f".{MANIFEST}.")
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write("[\n" + ",\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\n]\n")
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
    except BaseException:
        os.unlink(name)
        raise
    return Path(name)
