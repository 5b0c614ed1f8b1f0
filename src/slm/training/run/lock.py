"""One process a run folder: a second one that would write to it is refused."""

import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from slm.errors import UserError

if sys.platform != "win32":
    import fcntl
else:
    fcntl = None

LOCK_FILE = ".lock"
HOLDER_FILE = ".lock.json"
"""Who holds it: in a file of its own, since on Windows nobody else can read what is locked."""

_PATIENCE_S = 0.1  # for one that lets go of it just now
_DYING_S = 20.0  # a process that is being ended may have gigabytes to give back first


@contextmanager
def only_writer(run: Path) -> Iterator[None]:
    """Hold the lock of the run folder for the length of the block.

    The system lets go of it when the process ends, however that ends; `filelock` sees to it that no child holds it.
    `UserError`: another process holds it, or the folder cannot be written to.
    """
    lock = FileLock(run / LOCK_FILE)
    try:
        run.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=_PATIENCE_S)
    except Timeout:
        raise UserError(
            f"run_dir: '{run}' is in use{_holder(run)}; wait for that run, stop it, or name another folder"
        ) from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"run_dir: '{run}' cannot be written to ({reason}); name another folder") from None
    try:
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%F %T")}
        (run / HOLDER_FILE).write_text(json.dumps(holder), encoding="utf-8")
        yield
    finally:
        if lock.is_locked:  # not in a process that was forked in the block and comes here by an exception
            (run / HOLDER_FILE).unlink(missing_ok=True)
            if os.name != "nt":  # there it goes when it is let go of
                (run / LOCK_FILE).unlink(missing_ok=True)  # while locked: who waits for it takes one that has a name
            lock.release()


def wait_until_free(run: Path) -> None:
    """Wait for a process that holds the run folder and is being ended; if it still does after 20 s, no longer."""
    if (run / LOCK_FILE).is_file():
        lock = FileLock(run / LOCK_FILE)
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=_DYING_S)
        lock.release()


def _holder(run: Path) -> str:
    try:
        holder = json.loads((run / HOLDER_FILE).read_text(encoding="utf-8"))
        return f" by process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def is_held(run: Path) -> bool:
    """Whether a process writes to the run folder now. One that was killed leaves its files, and holds nothing."""
    try:
        with (run / LOCK_FILE).open("rb") as file:
            return not _could_be_locked(file, run / LOCK_FILE)
    except OSError:
        return False


def _could_be_locked(file: BinaryIO, path: Path) -> bool:
    """Asked by a shared lock where there is one: two that look at the same time do not see each other, and to read
    somebody else's folder is enough."""
    if fcntl is None:
        try:
            with FileLock(path).acquire(timeout=0):
                return True
        except Timeout:
            return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
