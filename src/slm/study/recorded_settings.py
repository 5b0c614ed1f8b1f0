"""The settings of a run, flat, read fast enough for a thousand of them."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slm.errors import UserError
from slm.files.reading import MOST_YAML_BYTES, bounded_text, yaml_object
from slm.schema import dotted

_SECTION = re.compile(r"^(?=[^\s#-])", re.MULTILINE)  # where a key at the top begins


def read_settings(file: Path) -> dict[str, Any]:
    """Dotted key -> value of a ``config.yaml``; {} without one, or if it is damaged.

    YAML is slow to read, and runs of one study have most of it in common. So it is read section by section, a section
    being what stands below a key at the top, and equal ones are read once.
    """
    try:
        text = bounded_text(file, MOST_YAML_BYTES, "restore it")
        head, *sections = _SECTION.split(text)
        is_comment = all(line.startswith("#") for line in head.split("\n") if line.strip())
        parts = [_section(part) for part in (sections if is_comment else [text])]
    except UserError:
        return {}
    return {key: value for part in parts for key, value in part.items()}


def typed_settings(overrides: Sequence[str]) -> dict[str, Any]:
    """Key -> value of ``key=value`` as typed; of ``~key`` none."""
    pairs = [override.lstrip("+").partition("=") for override in overrides if "=" in override]
    found: dict[str, Any] = {}
    for key, _, value in pairs:
        try:
            found |= flat({key: yaml_object(f"value: {value}", Path(key))["value"]})
        except UserError:
            found[key] = value
    return found


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted key -> value, of nested mappings those alone that hold nothing."""
    return {key: value for key, value in dotted(settings) if not isinstance(value, Mapping) or not value}


@functools.lru_cache(maxsize=4096)
def _section(text: str) -> dict[str, Any]:
    return flat(yaml_object(text, Path("config.yaml")))
