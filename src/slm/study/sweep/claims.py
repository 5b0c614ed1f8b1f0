"""Who does what: a claim is a lock that the system, or the database, lets go of when its holder ends, however it ends.

So a trial that is noted as running and can be claimed is one whose worker has died, and no clock is asked for that.
"""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Protocol

from filelock import FileLock, Timeout


class Claim(Protocol):
    """Held until it is released."""

    def release(self) -> None: ...


class Claims(Protocol):
    """Of one study."""

    def take(self, name: str) -> Claim | None:
        """None: another has it."""

    def wait_for(self, name: str) -> contextlib.AbstractContextManager[Any]:
        """Held for the length of a with block."""


class FileClaims:
    """Locks of files in `folder`, which the study's workers share: a local disk, or NFS from version 4 on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def take(self, name: str) -> Claim | None:
        lock = FileLock(self._folder / f"{name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        return lock

    def wait_for(self, name: str) -> contextlib.AbstractContextManager[Any]:
        return FileLock(self._folder / f"{name}.lock")


class _Advisory:
    def __init__(self, connection: Any, key: int) -> None:
        self._connection, self._key = connection, key

    def release(self) -> None:
        self._connection.exec_driver_sql(f"SELECT pg_advisory_unlock({self._key})")


class PostgresClaims:
    """PostgreSQL's advisory locks, held by this process's session: its workers need no disk in common. A session whose
    machine is cut off ends when the server has missed it for two minutes."""

    _ALIVE: ClassVar = {"keepalives": 1, "keepalives_idle": 30, "keepalives_interval": 30, "keepalives_count": 3}

    def __init__(self, address: str, study: str) -> None:
        from sqlalchemy import create_engine, pool

        engine = create_engine(address, poolclass=pool.NullPool, connect_args=self._ALIVE)
        self._connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        for side in ("idle = 30", "interval = 30", "count = 3"):
            self._connection.exec_driver_sql(f"SET tcp_keepalives_{side}")
        self._study = study
        self._held: set[int] = set()

    def _key(self, name: str) -> int:
        digest = hashlib.sha256(f"{self._study}/{name}".encode()).digest()
        return int.from_bytes(digest[:8], "big", signed=True)

    def take(self, name: str) -> Claim | None:
        key = self._key(name)
        if key in self._held:  # a session gets its own lock again
            return None
        found = self._connection.exec_driver_sql(f"SELECT pg_try_advisory_lock({key})").scalar()
        if not found:
            return None
        self._held.add(key)
        return _Held(_Advisory(self._connection, key), self._held, key)

    @contextlib.contextmanager
    def wait_for(self, name: str) -> Iterator[None]:
        key = self._key(name)
        self._connection.exec_driver_sql(f"SELECT pg_advisory_lock({key})")
        try:
            yield
        finally:
            _Advisory(self._connection, key).release()


class _Held:
    def __init__(self, lock: _Advisory, held: set[int], key: int) -> None:
        self._lock, self._held, self._key = lock, held, key

    def release(self) -> None:
        self._held.discard(self._key)
        self._lock.release()
