"""A JSON object read from a file that others may have written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from slm.errors import UserError
from slm.files.bounded_text import bounded_text

MOST_BYTES = 48 << 20
"""The largest tokenizers, of 262,000 tokens, take 33 MB."""
_MOST_VALUES = 3_000_000
"""An empty array is three bytes of text and seventy of memory; those tokenizers hold two million values."""


def json_text(file: Path) -> str:
    """The text of a JSON file whose values fit in a few hundred megabytes; it is not parsed.

    Raises:
        UserError: it is missing, unreadable, not text, or has more in it than any file of a model.
    """
    text = bounded_text(file, MOST_BYTES)
    if text.count(",") + text.count("[") + text.count("{") > _MOST_VALUES:
        raise UserError(f"{file} holds more than {_MOST_VALUES:,} values, more than any model's file; fetch it again")
    return text


def read_json_object(file: Path) -> dict[str, Any]:
    """What `file` holds.

    Raises:
        UserError: it is missing, unreadable, too large, not JSON, nested without end, or another value than an object.
    """
    try:
        text = json_text(file)
        content = json.loads(text)
        if "\\u" in text:  # JSON can spell half a surrogate pair, which is no text and can be written nowhere
            json.dumps(content, ensure_ascii=False).encode()
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is damaged ({error}); fetch or make it again") from None
    if not isinstance(content, dict):
        raise UserError(f"{file} is damaged (it holds no JSON object); fetch or make it again")
    return content
