"""Changes to JSON that keep it JSON: by bytes alone one hardly gets past the parser."""

from __future__ import annotations

import json
import random
from typing import Any

_VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 7, 2**31, 2**53, 2**63, 10**30, 0.5, 1e308, -1e-300, float("nan"), float("inf")),
    *("", "a", "\ud800", "\0", "../a", "/etc/passwd", "<|endoftext|>", "(" * 50, "x" * 5000),
    *([], {}, [[]], [None], {"a": 1}, {"_target_": "os.system"}, ["a", "b"], [1, 2]),
]


def mutated_json(data: bytes, draw: random.Random) -> bytes | None:
    """`data` with one to three of its values or keys changed; None if it is not JSON."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    try:
        for _ in range(draw.randint(1, 3)):
            value = _changed(value, draw)
        return json.dumps(value).encode()
    except (ValueError, RecursionError):  # it goes round in a circle, or is nested too deep to walk
        return None


def _changed(value: Any, draw: random.Random) -> Any:
    places = list(_places(value))
    if not places:
        return draw.choice(_VALUES)
    holder, key = draw.choice(places)
    how = draw.random()
    if how < 0.6:
        holder[key] = draw.choice(_VALUES)
    elif how < 0.75:
        del holder[key]
    elif how < 0.9:
        holder[key] = draw.choice(places)[0]
        value = json.loads(json.dumps(value))  # a copy, not the same object twice
    elif isinstance(holder, dict):
        holder[draw.choice(["a", "_target_", "", key + "x"])] = holder[key]
    else:
        holder.insert(key, holder[key])
    return value


def _places(value: Any) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _places(inner)
