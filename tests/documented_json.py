"""What `docs/json.md` says of a command's JSON, and whether an object is that."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[1] / "docs" / "json.md"
_ROW = re.compile(r"^\| `(?P<name>[^`?]+)(?P<optional>\??)` \| (?P<types>[a-z ]+) \| \S.* \|$", re.MULTILINE)
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "object": (dict,),
    "array": (list,),
}


@dataclass(frozen=True)
class Field:
    """One row of a table."""

    name: str  # dotted; ``[]`` stands for each item of an array, ``*`` for any name
    types: tuple[type, ...]
    is_optional: bool


def documented(title: str) -> list[Field]:
    """The fields below a heading of the document."""
    section = FILE.read_text(encoding="utf-8").partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return [
        Field(
            row["name"],
            tuple(kind for name in row["types"].split(" or ") for kind in _TYPES[name]),
            bool(row["optional"]),
        )
        for row in _ROW.finditer(section)
    ]


def differences(title: str, text: str, also: tuple[str, ...] = ()) -> list[str]:
    """What the one JSON object that `text` is, and nothing else, has otherwise than documented; names like those in
    `also` need no row."""
    found = json.loads(text)
    fields = documented(title)
    assert fields, f"docs/json.md has no table below '{title}'"
    assert isinstance(found, dict)
    return _differences(found, fields, "", also)


def _differences(node: Any, fields: list[Field], prefix: str, also: tuple[str, ...]) -> list[str]:
    own = [
        field
        for field in fields
        if field.name.startswith(prefix) and not re.search(r"[.\[]", field.name[len(prefix) :])
    ]
    told = []
    for name, value in node.items():
        rows = [field for field in own if fnmatchcase(prefix + name, field.name.replace("[", "[[]"))]
        if not rows and not any(fnmatchcase(name, one) for one in also):
            told.append(f"{prefix}{name} is not documented")
        for field in rows:
            if type(value) not in field.types:
                told.append(f"{prefix}{name} is {value!r}, documented as {field.types}")
            told += _inside(value, field, fields, also)
    missing = [field.name for field in own if not field.is_optional and "*" not in field.name]
    return told + [f"{name} is missing" for name in missing if name[len(prefix) :] not in node]


def _inside(value: Any, field: Field, fields: list[Field], also: tuple[str, ...]) -> list[str]:
    place = f"{field.name}." if isinstance(value, dict) else f"{field.name}[]."
    if not any(one.name.startswith(place) for one in fields):
        return []
    items = [value] if isinstance(value, dict) else value if isinstance(value, list) else []
    return [line for item in items for line in _differences(item, fields, place, also)]
