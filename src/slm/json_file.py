"""A JSON object read from a file that others may have written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from slm.errors import UserError


def read_json_object(file: Path) -> dict[str, Any]:
    """What `file` holds.

    Raises:
        UserError: it is missing, unreadable, not JSON, nested without end, or another value than an object.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} is damaged ({error}); fetch or make it again") from None
    if not isinstance(content, dict):
        raise UserError(f"{file} is damaged (it holds no JSON object); fetch or make it again")
    return content
