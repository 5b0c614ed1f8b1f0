"""Checks on the settings of a kind, worded alike."""

from __future__ import annotations

from slm.errors import UserError


def check_at_least(name: str, value: int, minimum: int, reason: str = "") -> None:
    """Raise `UserError` if the setting ``tokenizer.<name>`` is below `minimum`; `reason` says why it is that."""
    if value < minimum:
        because = f" ({reason})" if reason else ""
        raise UserError(f"tokenizer.{name} is {value}, but must be at least {minimum}{because}; set it higher")
