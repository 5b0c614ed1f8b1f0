"""A store on its way: a hidden folder beside its place that the next try, with the same inputs, goes on from.

.NAME.KEY.partial/store    becomes NAME
.NAME.KEY.partial/work     what is not to stay: the scan, and a note for each finished shard
.NAME.making               held while somebody makes NAME
"""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from slm.data.store.processes import StoppedError
from slm.errors import UserError
from slm.files.writing import UNFINISHED
from slm.notices import notice

_GOES_ON = "what is finished is kept, the same again goes on from there"


@dataclass(frozen=True)
class PartialStore:
    """Where things lie until the store is whole."""

    root: Path

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def work(self) -> Path:
        return self.root / "work"

    def begin(self) -> None:
        """Make what is missing; what a killed process was writing goes."""
        for folder in (self.store, self.work, self.work / "scan", self.work / "shards"):
            folder.mkdir(parents=True, exist_ok=True)
            for file in folder.glob(f"*{UNFINISHED}"):
                file.unlink(missing_ok=True)


@contextmanager
def partial_store(folder: Path, key: str) -> Iterator[PartialStore]:
    """What is there of the store `folder` so far; when the block ends without an error it becomes `folder`.

    What was begun with other inputs is removed. After a `UserError` nothing stays, since with what mends it the inputs
    are others; after a `StoppedError`, Ctrl-C, a kill, the next call with the same key goes on. The place may hold the
    store that a kill left there just after it was whole.

    Raises:
        UserError: another process is making it.
        StoppedError: the disk is full, or a file can no longer be read or written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.with_name(f".{folder.name}.making")
    partial = PartialStore(folder.with_name(f".{folder.name}.{key}.partial"))
    try:
        with FileLock(lock, timeout=0):
            try:
                _remove_others(folder, partial.root)
                partial.begin()
                yield partial
                if not folder.is_dir():
                    shutil.rmtree(partial.work)
                    os.replace(partial.store, folder)
                shutil.rmtree(partial.root)
            except StoppedError as error:
                raise StoppedError(f"{error}; {_GOES_ON}") from error
            except UserError:
                shutil.rmtree(partial.root, ignore_errors=True)
                raise
            except KeyboardInterrupt:
                raise KeyboardInterrupt("interrupted; the same again goes on from what is finished") from None
            except OSError as error:
                where = f"'{error.filename}': " if error.filename else ""
                raise StoppedError(
                    f"making '{folder}' broke off ({where}{error.strerror or error}); {_GOES_ON}"
                ) from error
            finally:
                lock.unlink(missing_ok=True)
    except Timeout:
        raise UserError(f"another process is making '{folder}'; wait for it, or name another folder") from None


def _remove_others(folder: Path, own: Path) -> None:
    """What was begun at the same place from other text or with other settings."""
    for other in folder.parent.glob(f".{glob.escape(folder.name)}.*.partial"):
        if other != own and other.is_dir() and {entry.name for entry in other.iterdir()} <= {"store", "work"}:
            notice(f"removed '{other}', begun from other text or with other settings")
            shutil.rmtree(other)
