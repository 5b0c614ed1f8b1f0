"""A run's folder: what lies where, and how to find the one to go on from."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from glob import glob
from pathlib import Path
from typing import Any, cast

from slm.errors import UserError
from slm.files.reading import read_json_object, read_yaml_object
from slm.files.writing import UNFINISHED, new_file
from slm.schema import Text, checked_file
from slm.training.run.checkpoint_files import CHECKPOINTS

CONFIG_FILE = "config.yaml"
METRICS_FILE = "metrics.csv"
RECORD_FILE = "run.json"
SAMPLES_FILE = "samples.txt"
SUMMARY_FILE = "summary.json"

DIRECTORY = "directory"  # of the record: where its settings were typed
TIME = "%Y-%m-%dT%H:%M:%S%z"
_PATHS = frozenset(
    {"path", "val_path", "test_path", "template_file", "weights", "download_dir", "from_step", "include_path"}
)  # last parts of keys
_PATH_KEYS = frozenset({"tokenizer.name"})  # a name on a hub, or a folder
_MOVED = {  # what a `_target_` of earlier versions may begin with
    "slm.training.muon.": "slm.training.optim.muon.",
    "slm.training.callbacks.": "slm.training.watch.",
    "slm.training.loggers.": "slm.training.watch.loggers.",
}
_WRITTEN_BESIDE = ("*.ckpt", "model", "start", METRICS_FILE)


@dataclass(frozen=True)
class _Session:
    command: list[Text]


@dataclass(frozen=True)
class _Record:
    """What of ``run.json`` is relied on; older versions wrote less."""

    overrides: list[Text] = field(default_factory=list)
    sessions: list[_Session] = field(default_factory=list)
    logger_ids: dict[Text, Text] = field(default_factory=dict)
    precision: Text = ""
    directory: Text = ""


def read_record(run: Path) -> dict[str, Any]:
    """``run.json``: command, overrides, versions, data fingerprint and precision of a run; {} without one."""
    file = run / RECORD_FILE
    if not file.exists():
        return {}
    record = read_json_object(file)
    checked_file(_Record, record, file, "restore it or start a new run")
    return record


def as_one_types_it(folder: Path, here: Path | None = None) -> Path:
    """`folder` from `here`, by default the working folder, where it lies below that."""
    here = here or Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def template_time(run: Path) -> datetime | None:
    """What a run's chat template, if it writes the time, wrote from the run's start on; None of a folder of no run."""
    try:
        first = read_record(run)["sessions"][0]
        noted = first.get("template_time")  # which older versions did not note, nor keep
        return datetime.fromisoformat(noted) if noted else datetime.strptime(first["started"], TIME)
    except (LookupError, TypeError, ValueError, AttributeError):  # no run, or somebody else's record
        return None


def read_config(run: Path) -> dict[str, Any]:
    """``config.yaml``: what the run was composed of, with paths and names as they are now."""
    return cast(dict[str, Any], settings_from_start(read_yaml_object(run / CONFIG_FILE), read_record(run)))


def recorded_plugins(run: Path) -> list[str]:
    """Modules that the run's configuration names; [] without one, `UserError` for one that is damaged."""
    file = run / CONFIG_FILE
    plugins = (read_yaml_object(file).get("plugins") if file.is_file() else None) or []
    if not isinstance(plugins, list) or not all(isinstance(module, str) for module in plugins):
        raise UserError(f"{file} is damaged (plugins is no list of modules); restore it")
    return plugins


def recorded_optimizer(run: Path) -> str | None:
    """The class that a run's configuration names; None where it does not say."""
    try:
        return str(read_config(run)["optimizer"]["_target_"])
    except (UserError, LookupError, TypeError):
        return None


def read_summary(run: Path) -> dict[str, Any]:
    """``summary.json``: the last figures of a run that came to its end; {} without one, or if it is damaged."""
    try:
        return read_json_object(run / SUMMARY_FILE)
    except UserError:
        return {}


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Whole or not at all."""
    with new_file(file) as out:
        out.write(json.dumps(content, indent=1).encode())


def remove_leftovers(run: Path) -> None:
    """Remove what a killed run was writing beside its places: none of it is whole, and checkpoints are large."""
    names = [f"*{UNFINISHED}", *(f".{name}.*" for name in _WRITTEN_BESIDE)]
    for left in [left for name in names for folder in (run, run / CHECKPOINTS) for left in folder.glob(name)]:
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()


def run_of_checkpoint(path: Path) -> Path:
    """The run folder that a checkpoint file, or the folder itself, belongs to."""
    return path.parent.parent if path.is_file() and path.parent.name == CHECKPOINTS else path


def overrides_from_start(record: Mapping[str, Any]) -> list[str]:
    """What a run was started with, in alphabetical order, with the paths as `from_start` gives them."""
    return sorted(_absolute_override(override, _start_folder(record)) for override in record.get("overrides", []))


# ---- relative paths, in a record that keeps settings as they were typed ----


def _start_folder(record: Mapping[str, Any]) -> Path:
    """Where the run was started; of records of before this was kept, here."""
    return Path(record.get(DIRECTORY) or Path.cwd())


def from_start(value: Any, record: Mapping[str, Any]) -> Any:
    """A path, a glob, or a list of them, of a run's settings: absolute if it names something where the run was started,
    and that is not here."""
    start = _start_folder(record)
    return value if start == Path.cwd() else _absolute(value, start)


def settings_from_start(settings: Any, record: Mapping[str, Any], key: str = "") -> Any:
    """Nested settings, those that are paths `from_start`; `key` is where they stand in the configuration."""
    if isinstance(settings, Mapping):
        return {name: settings_from_start(value, record, f"{key}.{name}") for name, value in settings.items()}
    if key.endswith("_target_") and isinstance(settings, str):
        return next((now + settings[len(old) :] for old, now in _MOVED.items() if settings.startswith(old)), settings)
    return from_start(settings, record) if _is_path(key) else settings


def override_from_start(override: str, record: Mapping[str, Any]) -> str:
    """``key=value`` as it was typed, the same."""
    start = _start_folder(record)
    return override if start == Path.cwd() else _absolute_override(override, start)


def _absolute_override(override: str, folder: Path) -> str:
    """``key=value`` as it was typed in `folder`, with every path that names something there made absolute."""
    key, separator, value = override.partition("=")
    if not separator or not _is_path(key):
        return override
    if value.startswith("[") and value.endswith("]"):
        return f"{key}=[{','.join(_element(one.strip(), folder) for one in value[1:-1].split(','))}]"
    return f"{key}={_absolute(value, folder)}"


def _is_path(key: str) -> bool:
    return key.lstrip("+.") in _PATH_KEYS or key.lstrip("+").rpartition(".")[2] in _PATHS


def _absolute(value: Any, folder: Path) -> Any:
    if isinstance(value, list):
        return [_absolute(one, folder) for one in value]
    if not isinstance(value, str) or not value:
        return value
    place = folder / Path(value).expanduser()
    run, at, step = str(place).rpartition("@")  # of ``from_step``
    named = place.exists() or glob(str(place)) or (at and step.isdecimal() and Path(run).is_dir())
    return str(place) if named else value


def _element(typed: str, folder: Path) -> str:
    quote = typed[0] if len(typed) > 1 and typed[0] in "'\"" and typed[-1] == typed[0] else ""
    return f"{quote}{_absolute(typed[1:-1] if quote else typed, folder)}{quote}"
