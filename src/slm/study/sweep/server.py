"""The sweeper's side of the fork server: trials are started, heard, answered and signalled."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class ServerLostError(RuntimeError):
    """The process that trials are forked from has ended, and they with it."""


@dataclass(frozen=True)
class Ended:
    """A trial's process has."""

    pid: int
    status: int  # negative: killed by this signal
    peak_bytes: int


@dataclass(frozen=True)
class Said:
    """A line of a trial's."""

    pid: int
    message: dict[str, Any]


@dataclass
class _Channel:
    socket: socket.socket
    unread: bytes = b""

    def lines(self) -> Iterator[dict[str, Any]]:
        """What has come; none once the other side has closed it."""
        received = self.socket.recv(1 << 16)
        *whole, self.unread = (self.unread + received).split(b"\n")
        yield from map(json.loads, whole)
        if not received:
            raise EOFError


@dataclass
class TrialServer:
    """A fork server with `module` imported, whose trials have `threads` threads each and at most `memory` bytes.

    Starts at once and imports in the background.
    """

    module: str
    threads: int
    memory: int | None = None
    _trials: dict[int, _Channel] = field(default_factory=dict, init=False)
    _told: list[Ended | Said] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        here, there = socket.socketpair()
        command = [sys.executable, "-m", "slm.study.sweep.fork_server", self.module]
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads)}
        self._process = subprocess.Popen(
            [*command, str(there.fileno()), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[there.fileno()],
            env=environment,
        )
        there.close()
        self._control = _Channel(here)

    def start(self, arguments: list[str], directory: Path, log: Path) -> int:
        """The number of a new process that does `arguments` in `directory` and writes what it says to `log`."""
        here, there = socket.socketpair()
        request = {"arguments": arguments, "directory": str(directory), "log": str(log), "memory": self.memory}
        with there:
            try:
                socket.send_fds(self._control.socket, [json.dumps(request).encode() + b"\n"], [there.fileno()])
            except OSError as error:
                raise ServerLostError from error
        while (pid := self._hear_control()) is None:
            pass
        self._trials[pid] = _Channel(here)
        return pid

    def events(self, timeout_s: float) -> list[Ended | Said]:
        """What trials have said and which have ended, waited for at most so long; a trial's end comes last of it."""
        sockets = {channel.socket: pid for pid, channel in self._trials.items()}
        wait = 0.0 if self._told else timeout_s
        ready, _, _ = select.select([self._control.socket, *sockets], [], [], wait)
        for pid in [sockets[one] for one in ready if one in sockets]:
            self._hear_trial(pid)
        if self._control.socket in ready:
            self._hear_control()
        told, self._told = self._told, []
        return sorted(told, key=lambda event: isinstance(event, Ended))

    def answer(self, pid: int, message: dict[str, Any]) -> None:
        """Of a trial that has ended meanwhile nobody hears it."""
        if pid in self._trials:
            try:
                self._trials[pid].socket.sendall(json.dumps(message).encode() + b"\n")
            except OSError:
                self._trials.pop(pid).socket.close()

    def signal(self, pid: int, number: int) -> None:
        self._control.socket.sendall(json.dumps({"signal": number, "pid": pid}).encode() + b"\n")

    def close(self) -> None:
        """End the server and whatever trials there are, at once."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        for channel in (self._control, *self._trials.values()):
            channel.socket.close()
        self._trials.clear()

    def _hear_control(self) -> int | None:
        """The number of a trial that has just been started, if that is what is told; the rest is kept for `events`."""
        started = None
        try:
            for message in self._control.lines():
                if "pid" in message:
                    started = int(message["pid"])
                elif "ended" in message:
                    self._end(message)
        except (EOFError, OSError) as error:
            raise ServerLostError from error
        return started

    def _end(self, message: dict[str, Any]) -> None:
        pid = message["ended"]
        if pid in self._trials:
            self._hear_trial(pid, wait=False)
            channel = self._trials.pop(pid, None)
            if channel is not None:
                channel.socket.close()
        self._told.append(Ended(pid, message["status"], message["peak_kib"] << 10))

    def _hear_trial(self, pid: int, wait: bool = True) -> None:
        if pid not in self._trials:
            return
        channel = self._trials[pid]
        if not wait and not select.select([channel.socket], [], [], 0)[0]:
            return
        try:
            self._told += [Said(pid, message) for message in channel.lines()]
        except (EOFError, OSError):
            self._trials.pop(pid).socket.close()
