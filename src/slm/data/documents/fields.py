"""The values of a record by their names, those inside others by dotted ones."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from slm.errors import UserError

_DEEPEST = 3  # mappings inside one another in which a text is looked for


def value_at(values: Any, field: str, default: Any = None) -> Any:
    """The value of the field, or the one to which its name leads as a dotted path: "data.text", "turns.0.content"."""
    if isinstance(values, Mapping) and field in values:
        return values[field]
    for key in field.split("."):
        if isinstance(values, Mapping) and key in values:
            values = values[key]
        elif isinstance(values, list) and key.isdecimal() and int(key) < len(values):
            values = values[int(key)]
        else:
            return default
    return values


def longest_text(values: Mapping[str, Any]) -> str | None:
    """The dotted name of the only long text of a record, at least twice as long as any other; None if there is none."""
    lengths = sorted(((len(text), name) for text, name in _texts(values)), reverse=True)
    longest, name = lengths[0] if lengths else (0, None)
    return name if longest and longest >= 2 * max((length for length, _ in lengths[1:]), default=0) else None


def column_of(field: str, there: Sequence[str], texts: Sequence[str], table: str) -> str:
    """The column that holds the field; `UserError` if none of those that are `there` does, with the only one that holds
    texts."""
    for name in (field, field.partition(".")[0]):
        if name in there:
            return name
    offered = f"; the only one with text is data.field={texts[0]}" if len(texts) == 1 else ""
    raise UserError(f"data.field: '{table}' has no column '{field}'; it has: {', '.join(there)}{offered}")


def _texts(values: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, str):
            yield value, ".".join([*above, key])
        elif isinstance(value, Mapping) and len(above) < _DEEPEST:
            yield from _texts(value, (*above, key))
