"""Who is let in, and what every answer says to a browser."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from slm.serve.config import ServeConfig
from slm.serve.request_error import error_body

_OPEN = ("/", "/health", "/openapi.json", "/favicon.ico")  # without a key: they tell nothing of models and texts
_OPEN_BELOW = "/page/"
_LOCAL = ("127.0.0.1", "localhost", "::1")
_UNREAD_SECONDS = 60.0  # an answer that nobody takes is held no longer
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Guard:
    """Around all of an application. `counted` is told each answer's path and status."""

    def __init__(self, app: ASGIApp, config: ServeConfig, counted: Callable[[str, int], None]) -> None:
        self._app = app
        self._config = config
        self._counted = counted
        self._most_seconds = config.timeout + _UNREAD_SECONDS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._counted(scope["path"], message["status"])
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        refusal = self._refusal(scope)
        app = self._app if refusal is None else refusal
        # uvicorn closes what is not complete; who leaves ahead of the answer needs none
        with contextlib.suppress(asyncio.TimeoutError, ClientDisconnect):
            await asyncio.wait_for(app(scope, receive, guarded), self._most_seconds)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._config.is_local and _name(host) not in (*_LOCAL, self._config.host):
            # a name of somebody else's that leads here: the page of a stranger would read answers as its own
            return _refused(f"this server is asked by the name 127.0.0.1 or localhost; got {host[:100]!r}", 403)
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return _refused("pages of other places may not ask here", 403)
        is_open = scope["path"] in _OPEN or scope["path"].startswith(_OPEN_BELOW)
        key = self._config.api_key
        if key is not None and not is_open and not _fits(headers.get("authorization", ""), key):
            told = "the key is missing or wrong; send the header Authorization: Bearer KEY"
            return _refused(told, 401, "invalid_api_key", {"WWW-Authenticate": "Bearer"})
        return None


def _name(host: str) -> str:
    """Of a Host header, without its port; "" for what is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _fits(authorization: str, key: str) -> bool:
    scheme, _, given = authorization.partition(" ")
    sent = given.strip().encode("latin-1")  # headers are read so; a key is UTF-8
    return scheme.lower() == "bearer" and hmac.compare_digest(sent, key.encode())


def _refused(message: str, status: int, code: str | None = None, headers: dict[str, str] | None = None) -> ASGIApp:
    return JSONResponse(error_body(message, status, code), status, headers)
