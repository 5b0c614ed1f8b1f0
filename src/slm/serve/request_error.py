"""A request that cannot be met, in the shape that OpenAI's API has for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slm.errors import UserError

_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


class RequestError(UserError):
    """What was got, what is allowed and how to mend it; `param` is the field that is wrong, if it is one."""

    def __init__(
        self,
        message: str,
        status: int = 400,
        code: str | None = None,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param, self.headers = status, code, param, headers or {}


def error_body(message: str, status: int, code: str | None = None, param: str | None = None) -> Mapping[str, Any]:
    """``{"error": {"message", "type", "param", "code"}}``."""
    kind = "server_error" if status >= 500 else _TYPES.get(status, "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
