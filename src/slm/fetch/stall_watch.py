"""A connection that brings next to nothing is broken off, however it manages to stay alive."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

_LEAST_BYTES_PER_S = 1024


class StallWatch:
    """Breaks a connection off if for `seconds` no answer comes, or less content than 1 KiB a second.

    A timeout of the socket alone is about one receive: a server that sends a byte now and then, or header lines without
    end, would hold us for ever. Broken off, the reader sees the end of the content; it must ask `stalled` then.

    Attributes:
        stalled: the connection was broken off.
    """

    def __init__(self, seconds: float) -> None:
        self.stalled = False
        self._seconds = seconds
        self._came = 0
        self._deadline = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._connection: socket.socket | None = None

    def begin(self, connection: socket.socket) -> None:
        """Watch `connection` from now on, by a handle of our own: TLS takes over the one that is given."""
        self._connection = connection.dup()
        self.restart()
        self._thread.start()

    def restart(self) -> None:
        """Count from now: another part of the answer begins."""
        self._came, self._deadline = 0, time.monotonic() + self._seconds

    def came(self, size: int) -> None:
        """`size` bytes of content came."""
        self._came += size
        if self._came >= _LEAST_BYTES_PER_S * self._seconds:
            self.restart()

    def end(self) -> None:
        """Watch no longer; the connection itself is whoever's it was."""
        self._over.set()
        if self._connection is not None:
            self._thread.join()
            self._connection.close()

    def _watch(self) -> None:
        while (left := self._deadline - time.monotonic()) > 0:
            if self._over.wait(left):
                return
        self.stalled = True
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)
