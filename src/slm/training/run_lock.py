"""One process a run folder: a second one that would write to it is refused."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from slm.errors import UserError

LOCK_FILE = ".lock"


@contextmanager
def only_writer(run: Path) -> Iterator[None]:
    """Hold the lock of the run folder for the length of the block.

    The system lets go of it when the process ends, however that ends, so a lock file that a killed run left is no
    obstacle; and no process that this one starts holds it. On a network file system the lock is as good as that
    system's own (NFS: from version 4 on, or with lockd).

    Raises:
        UserError: another process holds it, or the folder cannot be written to.
    """
    try:
        file = _locked(run / LOCK_FILE)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"run_dir: '{run}' cannot be written to ({reason}); name another folder") from None
    if file is None:
        raise UserError(f"run_dir: '{run}' is in use{_holder(run)}; wait for that run, stop it, or name another folder")
    try:
        file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%F %T")}))
        file.flush()
        yield
    finally:
        (run / LOCK_FILE).unlink(missing_ok=True)  # while it is still locked: the next one makes a file of its own
        file.close()


def _locked(place: Path) -> IO[str] | None:
    """The file at `place`, locked; None if another process has locked it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = place.open("a+", encoding="utf-8")
        try:
            _lock(file)
            if _is_at(file, place):
                file.truncate(0)
                return file
        except BlockingIOError:
            file.close()
            return None
        except BaseException:
            file.close()
            raise
        file.close()  # its holder removed it in between


def _lock(file: IO[str]) -> None:
    """Raises `BlockingIOError` if another process holds the lock."""
    if os.name == "nt":
        import msvcrt
        from typing import cast

        windows = cast(Any, msvcrt)
        try:
            windows.locking(file.fileno(), windows.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError from error
        return
    import errno
    import fcntl

    try:
        # of the process, not of the open file as flock's: a loader process that outlives a killed run does not hold it
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise BlockingIOError from error
        raise


def _is_at(file: IO[str], place: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), place.stat())
    except FileNotFoundError:
        return False


def _holder(run: Path) -> str:
    """For a message: who holds the lock, as far as the file says."""
    try:
        holder = json.loads((run / LOCK_FILE).read_text(encoding="utf-8"))
        return f" by process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
