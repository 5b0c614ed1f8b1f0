"""Listening, and an end on Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from slm.errors import UserError
from slm.serve.config import ServeConfig
from slm.serve.heads import PromptHeads

_MOST_CONNECTIONS = 900  # open files are 1,024 on most systems
_MOST_HEAD_BYTES = 32 << 10
_KEPT_SECONDS = 30


def listening(config: ServeConfig) -> socket.socket:
    """A socket that does; `UserError` where it cannot."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise UserError(f"host={config.host} is no address of this machine ({error}); leave it out") from None
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(1024)
    except OSError as error:
        found.close()
        mend = "is it served already? port=0 takes any that is free" if config.port else "host=127.0.0.1"
        raise UserError(f"cannot listen at {config.host}:{config.port} ({error.strerror}); {mend}") from None
    return found


def url_of(listener: socket.socket) -> str:
    """Where it is."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


class Server(uvicorn.Server):
    """One that ends on Ctrl-C or SIGTERM: what runs may end within the grace time, a second time nothing may."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)


def serve(app: ASGIApp, config: ServeConfig, listener: socket.socket) -> None:
    """Until it is asked to end."""
    server_of(app, config).run(sockets=[listener])


def server_of(app: ASGIApp, config: ServeConfig) -> Server:
    """One that does not run yet."""
    return Server(
        uvicorn.Config(
            app,
            http=PromptHeads,
            ws="none",
            lifespan="on",
            log_config=None,
            log_level="critical",  # what fails is told by the application
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_MOST_CONNECTIONS,
            h11_max_incomplete_event_size=_MOST_HEAD_BYTES,
            timeout_keep_alive=_KEPT_SECONDS,
            timeout_graceful_shutdown=max(1, round(config.grace)),
        )
    )
