"""Settings as one types them, and as Hydra's grammar reads them."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence


def quote(argument: str, literal: Collection[str], paths: Collection[str]) -> str:
    """`key=value` with the value quoted for Hydra's grammar, if its key is to be taken as typed."""
    key, separator, value = argument.partition("=")
    means_more = value == "null" or (value.startswith("[") and value.endswith("]"))
    name = key.lstrip("+")
    if separator and (name in literal or (name in paths and not means_more)):
        return f"{key}={quoted(value)}"
    return argument


def as_typed(overrides: Sequence[str], keys: Collection[str]) -> list[str]:
    """Overrides in Hydra's grammar with the text values of `keys` as one types them: no quotes, no escapes."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = OverridesParser.create()
    typed = []
    for override in overrides:
        key = override.partition("=")[0]
        value = parser.parse_override(override).value() if key.lstrip("+") in keys else None
        typed.append(f"{key}={_without_escapes(value)}" if isinstance(value, str) else override)
    return typed


def _without_escapes(value: str) -> str:
    """A string as OmegaConf reads it, interpolations left as they are."""
    return re.sub(r"((?:\\\\)*)\\\$\{", lambda found: "\\" * (len(found[1]) // 2) + "${", value)


def quoted(value: str) -> str:
    """`value` as a single-quoted string of Hydra's override grammar that means exactly `value`."""
    # for OmegaConf "${" begins an interpolation unless an odd number of backslashes stands before it
    escaped = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    out: list[str] = []
    backslashes = 0
    for character in escaped:
        if character == "\\":
            backslashes += 1
            continue
        # backslashes are literal unless a quote follows; then each must be doubled
        out.append("\\" * (backslashes * 2 + 1 if character == "'" else backslashes) + character)
        backslashes = 0
    out.append("\\" * (backslashes * 2))
    return "'" + "".join(out) + "'"
