"""Optuna's journal file, safe from those who are killed while they hold or write it.

Optuna's own locks are files that a killed holder leaves behind: everybody then waits for half a minute. The lock here
is the system's, which lets go of it with the process. A line that was cut short (a power cut, a full disk) would have
the next one glued to it, and no reader would come past that; so it is removed before the next one is written.
"""

import os
from pathlib import Path

from filelock import FileLock
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock


def journal(file: Path) -> JournalFileBackend:
    """A journal that several processes may read and append to, whole lines at a time, flushed to the disk."""
    return JournalFileBackend(str(file), _SystemLock(file))


class _SystemLock(JournalFileOpenLock):
    """Taken by the backend around every append."""

    def __init__(self, file: Path) -> None:
        super().__init__(str(file))
        self._file = file
        self._lock = FileLock(file.with_name(f".{file.name}.lock"))

    def acquire(self) -> bool:
        self._lock.acquire()
        remove_torn_line(self._file)
        return True

    def release(self) -> None:
        self._lock.release()


def remove_torn_line(file: Path) -> None:
    """Cut off what stands behind the last end of a line; no reader has taken it up."""
    with file.open("rb+") as content:
        size = end = content.seek(0, os.SEEK_END)
        while end:
            begin = max(0, end - 4096)
            content.seek(begin)
            if (found := content.read(end - begin).rfind(b"\n")) >= 0:
                end = begin + found + 1
                break
            end = begin
        if end != size:
            content.truncate(end)
