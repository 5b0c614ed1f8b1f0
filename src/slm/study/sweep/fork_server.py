"""The process that trials are forked from: it has imported what a run needs, which takes longer than many a trial.

``python -m slm.study.sweep.fork_server MODULE FD PARENT``: MODULE has ``preload()``, called once, and
``run(arguments, channel)``, called in a process of its own for every request, which gives that process's exit status.
Requests are lines of JSON on the socket FD, each with the trial's channel, a socket, beside it:
``{"arguments", "directory", "log", "memory"}``, answered by ``{"pid"}``, and ``{"signal", "pid"}``. The end of a trial
is told as ``{"ended": pid, "status", "peak_kib"}``, the status negative for a signal.

It ends with PARENT, and the trials end with it: at once on Linux, within a second elsewhere.
"""

import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
from typing import Any

from slm.study.sweep.lifeline import end_with

_FROM_TERMINALS = {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}


def main() -> None:
    """Serve until the other side of the socket is closed."""
    module, descriptor, parent = sys.argv[1:4]
    os.setsid()  # a terminal's Ctrl-C is the sweeper's to hear, and to pass on
    for number in _FROM_TERMINALS:
        signal.signal(number, signal.SIG_IGN)
    end_with(int(parent))
    control = socket.socket(fileno=int(descriptor))
    entry = importlib.import_module(module)
    if sys.platform == "linux":  # elsewhere what was imported may not be forked
        entry.preload()
        gc.collect()
        gc.freeze()
    _serve(control, entry)


def _serve(control: socket.socket, entry: Any) -> None:
    woken, wakes = socket.socketpair()
    woken.setblocking(False)
    wakes.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes.fileno())
    trials: set[int] = set()
    unread, channel = b"", -1
    while True:
        ready, _, _ = select.select([control, woken], [], [])
        if woken in ready:
            woken.recv(4096)
        if control in ready:
            received, channels, _, _ = socket.recv_fds(control, 1 << 20, 1)
            if not received:
                return  # the sweeper has ended
            channel = channels[0] if channels else channel
            *whole, unread = (unread + received).split(b"\n")
            for request in map(json.loads, whole):
                if "signal" not in request:
                    trials.add(_fork(entry, request, channel, control))
                elif request["pid"] in trials:
                    os.kill(request["pid"], request["signal"])
        _reap(control, trials)


def _reap(control: socket.socket, trials: set[int]) -> None:
    for pid in list(trials):
        ended, status, used = os.wait4(pid, os.WNOHANG)
        if ended:
            trials.remove(pid)
            code = os.waitstatus_to_exitcode(status)
            _say(control, {"ended": pid, "status": code, "peak_kib": used.ru_maxrss})


def _fork(entry: Any, request: dict[str, Any], channel: int, control: socket.socket) -> int:
    """The number of the process that does it. Signals wait until that process has its handlers."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _FROM_TERMINALS)
    server = os.getpid()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            control.close()
            end_with(server)
            status = _run(entry, request, channel)
        finally:
            os._exit(status)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FROM_TERMINALS)
    os.close(channel)
    _say(control, {"pid": pid})
    return pid


def _run(entry: Any, request: dict[str, Any], channel: int) -> int:
    gc.unfreeze()
    os.chdir(request["directory"])
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream, opened in ((0, os.open(os.devnull, os.O_RDONLY)), (1, log), (2, log)):
        os.dup2(opened, stream)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if request["memory"]:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (request["memory"], request["memory"]))
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _FROM_TERMINALS)
        status: int = entry.run(request["arguments"], channel)
    except KeyboardInterrupt:
        status = 130
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return status


def _say(control: socket.socket, message: dict[str, Any]) -> None:
    control.sendall(json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main()
