"""Records of a benchmark, a line of JSON each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slm.errors import UserError
from slm.files.reading import bounded_text

_MOST_BYTES = 512 << 20  # they are held in memory


def records_in(file: Path) -> list[dict[str, Any]]:
    """All of them; `UserError` names the line that is none."""
    found = list(_records(file))
    if not found:
        raise UserError(f"'{file}' holds no record; give a file with a line of JSON each")
    return found


def _records(file: Path) -> Iterator[dict[str, Any]]:
    text = bounded_text(file, _MOST_BYTES, "give a file of JSON Lines in UTF-8")
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        if line.strip():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(f"line {number} of '{file}' is no JSON ({error}); mend it") from None
            if not isinstance(record, dict):
                raise UserError(f"line {number} of '{file}' is no JSON object; give one a line")
            yield record


def text_of(record: dict[str, Any], name: str, file: Path, number: int) -> str:
    """The text under `name` of the record `number` (from 1 on); `UserError` where there is none."""
    value = record.get(name)
    if not isinstance(value, str) or not value:
        has = ", ".join(map(str, record)) or "nothing"
        raise UserError(f"record {number} of '{file}' needs a text '{name}'; it has {has}")
    return value
