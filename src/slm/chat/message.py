"""What a conversation is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Message = Mapping[str, Any]
"""``role`` (``system``, ``user``, ``assistant``, …) and ``content``, both texts, and what else a template reads."""


def is_message(value: Any) -> bool:
    """It has a role and a content, and both are texts."""
    return isinstance(value, Mapping) and all(isinstance(value.get(name), str) for name in ("role", "content"))
