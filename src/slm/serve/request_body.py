"""The body of a request: bounded in size and time, JSON, and of the form that is asked for."""

from __future__ import annotations

import asyncio
import json
from typing import Any, TypeVar

from starlette.requests import Request

from slm.errors import UserError
from slm.files.reading import is_unicode
from slm.schema import checked
from slm.serve.request_error import RequestError

T = TypeVar("T")
_SECONDS = 30.0
_CLOSE = {"Connection": "close"}  # what is left of the body is not read


async def read_body(request: Request, cls: type[T], most: int) -> T:
    """The body as `cls`. `RequestError` if it is larger than `most` bytes, takes too long, or is something else."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RequestError(f"the body must be application/json; got {kind or 'no Content-Type'}", 415)
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > most:
        raise _too_large(most)
    try:
        raw = await asyncio.wait_for(_bounded(request, most), _SECONDS)
    except asyncio.TimeoutError:
        raise RequestError(f"the body took longer than {_SECONDS:.0f} s", 408, headers=_CLOSE) from None
    return await asyncio.to_thread(_parsed, raw, cls)


async def _bounded(request: Request, most: int) -> bytes:
    raw = bytearray()
    async for part in request.stream():
        raw += part
        if len(raw) > most:
            raise _too_large(most)
    return bytes(raw)


def _too_large(most: int) -> RequestError:
    message = f"the body has more than {most / (1 << 20):.3g} MiB; the server was started with max_body_mib so"
    return RequestError(message, 413, headers=_CLOSE)


def _parsed(raw: bytes, cls: type[T]) -> T:
    try:
        values = json.loads(raw.decode(), parse_constant=_no_number)
        whole = is_unicode(json.dumps(values, ensure_ascii=False))
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the body is no JSON ({error})") from None
    if not isinstance(values, dict):
        raise RequestError(f"the body must be a JSON object; got {type(values).__name__}")
    if not whole:
        raise RequestError("the body holds half a surrogate pair, which is no character")
    try:
        return checked(cls, values)
    except UserError as error:
        lines = str(error).splitlines()
        raise RequestError("\n".join(lines), param=_field(lines[0], values)) from None


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _field(line: str, values: dict[str, Any]) -> str | None:
    name = line.removeprefix("unknown key '").split("'")[0].split(" ")[0].split(":")[0].split(".")[0]
    return name if name in values else None
