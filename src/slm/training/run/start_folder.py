"""Relative paths in a run's record, which keeps all settings as they were typed, and the folder they were typed in."""

from __future__ import annotations

from collections.abc import Mapping
from glob import glob
from pathlib import Path
from typing import Any

DIRECTORY = "directory"  # in run.json

_LAST_PARTS = frozenset({"path", "val_path", "template_file", "weights", "download_dir"})
_KEYS = frozenset({"tokenizer.name"})  # a name on a hub, or a folder


def start_folder(record: Mapping[str, Any]) -> Path:
    """Where the run was started; of records of before this was kept, here."""
    return Path(record.get(DIRECTORY) or Path.cwd())


def from_start(value: Any, record: Mapping[str, Any]) -> Any:
    """A path, a glob, or a list of them, of a run's settings: absolute if it names something where the run was started.

    Absolute paths, names on a hub, and values of a run that was started here are given back as they are.

    Args:
        value: of a setting that may be a path.
        record: ``run.json``.
    """
    start = start_folder(record)
    return value if start == Path.cwd() else _absolute(value, start)


def settings_from_start(settings: Any, record: Mapping[str, Any], key: str = "") -> Any:
    """Nested settings, those that are paths `from_start`; `key` is where they stand in the configuration."""
    if isinstance(settings, Mapping):
        return {
            name: settings_from_start(value, record, f"{key}.{name}" if key else name)
            for name, value in settings.items()
        }
    return from_start(settings, record) if _is_path(key) else settings


def override_from_start(override: str, record: Mapping[str, Any]) -> str:
    """``key=value`` as it was typed, the same."""
    start = start_folder(record)
    return override if start == Path.cwd() else absolute_override(override, start)


def absolute_override(override: str, folder: Path) -> str:
    """``key=value`` as it was typed in `folder`, with every path that names something there made absolute."""
    key, separator, value = override.partition("=")
    if not separator or not _is_path(key.lstrip("+")):
        return override
    if value.startswith("[") and value.endswith("]"):
        return f"{key}=[{','.join(_element(one.strip(), folder) for one in value[1:-1].split(','))}]"
    return f"{key}={_absolute(value, folder)}"


def _is_path(key: str) -> bool:
    return key in _KEYS or key.rpartition(".")[2] in _LAST_PARTS


def _absolute(value: Any, folder: Path) -> Any:
    if isinstance(value, list):
        return [_absolute(one, folder) for one in value]
    if not isinstance(value, str) or not value:
        return value
    place = folder / Path(value).expanduser()
    return str(place) if place.exists() or glob(str(place)) else value


def _element(typed: str, folder: Path) -> str:
    quote = typed[0] if len(typed) > 1 and typed[0] in "'\"" and typed[-1] == typed[0] else ""
    return f"{quote}{_absolute(typed[1:-1] if quote else typed, folder)}{quote}"
