"""A server on this machine that behaves as badly as one likes."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

JSON = json.dumps([{"instruction": "Say ä.", "input": "", "output": "ä"}] * 100).encode()
CUT = 1000
"""Bytes after which `Resumable` breaks off."""

Route = Callable[[BaseHTTPRequestHandler], None]


def page(body: bytes = JSON, status: int = 200, send: int | None = None, **headers: str) -> Route:
    """Answers with `headers` (``content_type="…"``) and the first `send` bytes of `body`, all by default."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        if not {"transfer_encoding", "content_length"} & set(headers):
            request.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(body[:send])

    return answer


def to(location: str, status: int = 302) -> Route:
    return page(b"", status, location=location)


def raw(*pieces: bytes, again: bytes = b"", every: float = 0.0) -> Route:
    """Sends `pieces`, then `again` for ever."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        try:
            for piece in pieces:
                request.wfile.write(piece)
            while again:
                request.wfile.write(again)
                time.sleep(every)
        except OSError:
            pass

    return answer


class Resumable:
    """Knows Range; breaks off after `CUT` bytes, then `breaks` times at once, then not any more."""

    def __init__(self, body: bytes, breaks: int) -> None:
        self.body, self.breaks = body, breaks
        self.seen: list[str | None] = []

    def __call__(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers["Range"]
        self.seen.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if len(self.seen) > 1:
            self.breaks -= 1
        send = CUT if not asked else 0 if self.breaks >= 0 else None
        span = {"content_range": f"bytes {start}-{len(self.body) - 1}/{len(self.body)}"} if asked else {}
        page(self.body[start:], 206 if asked else 200, send, etag='"one"', **span)(request)


class Site:
    """A server on this machine: an address and what answers at each path."""

    def __init__(self, certificate: Path | None = None) -> None:
        self.routes: dict[str, Route] = {}
        self.asked: list[str] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append(self.path)
                site.routes.get(self.path.partition("?")[0], page(b"no", 404))(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.server.socket = context.wrap_socket(
                self.server.socket, server_side=True, do_handshake_on_connect=False
            )
            self.server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that hangs up
        self.url = f"{'https' if certificate else 'http'}://localhost:{self.port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def __setitem__(self, path: str, route: Route) -> None:
        self.routes[path] = route

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def left(folder: Path) -> list[str]:
    """All that lies in `folder`, folders too."""
    return sorted(str(entry.relative_to(folder)) for entry in folder.rglob("*"))
