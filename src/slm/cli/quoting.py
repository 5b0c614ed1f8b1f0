"""Settings as one types them, and as Hydra's grammar reads them."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

_STRING = re.compile(r"""'(?:[^'\\]|\\.)*'|"((?:[^"\\]|\\.)*)\"""", re.DOTALL)
_ESCAPE = re.compile(r'\\([ntr\\"])')
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r"}


def quote(argument: str, literal: Collection[str], paths: Collection[str]) -> str:
    """`key=value` with the value quoted for Hydra's grammar, if its key is to be taken as typed."""
    key, separator, value = argument.partition("=")
    means_more = value == "null" or (value.startswith("[") and value.endswith("]"))
    name = key.lstrip("+")
    if separator and (name in literal or (name in paths and not means_more)):
        return f"{key}={quoted(value)}"
    return argument


def with_escapes(argument: str, as_they_are: Collection[str]) -> str:
    r"""`key=value` in Hydra's grammar, which takes ``"\n"`` for a backslash and an n, with what it means.

    The rule is YAML's: in double quotes ``\n``, ``\t``, ``\r``, ``\\`` and ``\"`` stand for a character,
    in single quotes and in none a backslash is itself. The values of the keys `as_they_are` have no escapes.
    """
    key, separator, value = argument.partition("=")
    if key.lstrip("+") in as_they_are:
        return argument
    return key + separator + _STRING.sub(_unescaped, value)


def _unescaped(found: re.Match[str]) -> str:
    """A double-quoted string as a single-quoted one; what has an interpolation is left to Hydra."""
    inside = found[1]
    if inside is None or "\\" not in inside or "${" in inside:
        return found[0]
    return _single_quoted(_ESCAPE.sub(lambda one: _ESCAPED.get(one[1], one[1]), inside))


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
    return _single_quoted(re.sub(r"(\\*)\$\{", r"\1\1\\${", value))


def _single_quoted(text: str) -> str:
    """`text` in Hydra's single quotes, interpolations and all."""
    out: list[str] = []
    backslashes = 0
    for character in text:
        if character == "\\":
            backslashes += 1
            continue
        # backslashes are literal unless a quote follows; then each must be doubled
        out.append("\\" * (backslashes * 2 + 1 if character == "'" else backslashes) + character)
        backslashes = 0
    out.append("\\" * (backslashes * 2))
    return "'" + "".join(out) + "'"
