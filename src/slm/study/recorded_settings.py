"""The settings of a run, flat, read fast enough for a thousand of them."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from slm.errors import UserError
from slm.files.reading import MOST_YAML_BYTES, bounded_text, yaml_object
from slm.schema import dotted

_SECTION = re.compile(r"^(?=[^\s#-])", re.MULTILINE)  # where a key at the margin begins
_NAME = re.compile(r"[A-Za-z_]\w*")
_FILE = Path("config.yaml")


def read_settings(file: Path) -> dict[str, Any]:
    """Dotted key -> value of a ``config.yaml``; {} without one, or if it is damaged.

    YAML is slow to read, and runs of one study have most of it in common. So it is read section by section, a section
    being a key with what stands below it, and equal ones are read once.
    """
    try:
        return _settings(bounded_text(file, MOST_YAML_BYTES, "restore it"))
    except UserError:
        return {}


def _settings(text: str) -> dict[str, Any]:
    head, *sections = _SECTION.split(text)
    if all(line.startswith("#") for line in head.split("\n") if line.strip()):
        return {key: value for section in sections for key, value in _section(section).items()}
    return flat(yaml_object(text, _FILE))


@functools.lru_cache(maxsize=1 << 14)
def _section(text: str) -> dict[str, Any]:
    key, _, below = text.partition(":\n")
    if _NAME.fullmatch(key) and all(line.startswith("  ") or not line for line in below.split("\n")):
        inside = re.sub("^  ", "", below, flags=re.MULTILINE)
        if _SECTION.match(inside):  # else it is a list, or indented otherwise
            return {f"{key}.{name}": value for name, value in _settings(inside).items()}
    return flat(yaml_object(text, _FILE))


def key_values(overrides: Iterable[str]) -> dict[str, str]:
    """Key -> value of ``key=value`` and ``+key=value``, as typed; of ``~key`` none."""
    return dict(override.lstrip("+").split("=", 1) for override in overrides if "=" in override)


def typed_settings(overrides: Sequence[str]) -> dict[str, Any]:
    """The same with the values as YAML reads them, flat."""
    found: dict[str, Any] = {}
    for key, value in key_values(overrides).items():
        try:
            found |= flat({key: yaml_object(f"value: {value}", Path(key))["value"]})
        except UserError:
            found[key] = value
    return found


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted key -> value, of nested mappings those alone that hold nothing."""
    return {key: value for key, value in dotted(settings) if not isinstance(value, Mapping) or not value}
