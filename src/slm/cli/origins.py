"""Where each value of a composed configuration comes from: a file, or a setting of the command line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from slm.cli.composition import CONFIG, compose, without_hydra

_REFERENCE = re.compile(r"\$\{([^{}:$]+)\}")


@dataclass(frozen=True)
class Origin:
    """What set a value.

    Attributes:
        setting: as Hydra reads it, of the command line; None for a file.
        file: of a group's choice: ``optimizer/adamw``, in `folder`.
        folder: ``conf`` for ours, else the user's own.
        package: dotted place that the file fills.
    """

    setting: str | None = None
    file: str = ""
    folder: str = ""
    package: str = ""

    def __str__(self) -> str:
        return f"{self.folder}/{self.file}.yaml" if self.setting is None else self.setting


@dataclass(frozen=True)
class Leaf:
    """A value of the configuration.

    Attributes:
        key: dotted.
        value: resolved.
        written: as it stands where it was set, interpolations unresolved.
        origin: what set it.
    """

    key: str
    value: Any
    written: Any
    origin: Origin

    def refers_to(self) -> list[str]:
        """Keys of the settings that this one takes its value from."""
        return _REFERENCE.findall(self.written) if isinstance(self.written, str) else []


def leaves_of(loader: ConfigLoaderImpl, config_name: str, overrides: Sequence[str]) -> list[Leaf]:
    """Every value of the configuration, in its order; an empty mapping is a value too. Raises what Hydra does.

    The files are merged again in Hydra's order, noting who was the last to say what.
    """
    cfg = without_hydra(compose(loader, config_name, overrides))
    origins = _origins(loader, config_name, overrides)
    written: Any = OmegaConf.to_container(cfg, resolve=False)
    return [Leaf(key, _resolved(cfg, key, value), value, origins[key]) for key, value in _leaves(written, "")]


def _origins(loader: ConfigLoaderImpl, config_name: str, overrides: Sequence[str]) -> dict[str, Origin]:
    listed = loader.compute_defaults_list(config_name, list(overrides), RunMode.RUN)
    found: dict[str, Origin] = {}
    for default in listed.defaults:
        if default.package is not None and default.package.partition(".")[0] == "hydra":
            continue
        loaded = loader._load_single_config(default, loader.repository)
        content: Any = OmegaConf.to_container(loaded.config, resolve=False)
        if default.primary:
            content = {key: value for key, value in content.items() if key != "defaults"}
        folder = "conf" if loaded.path == CONFIG else loaded.path.partition("://")[2]
        origin = Origin(None, str(default.config_path), folder, str(default.package))
        _note(found, content, "", origin)
    for override in listed.config_overrides:
        if not override.is_delete():
            key, value = override.key_or_group, override.value()
            _note(found, _nested(key, value), "", Origin(str(override.input_line)))
    return found


def _nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


def _note(found: dict[str, Origin], node: Mapping[str, Any], prefix: str, origin: Origin) -> None:
    """Note `origin` for all that `node` says; what stood below a mapping that it replaces is forgotten."""
    for key, value in node.items():
        path = f"{prefix}{key}"
        below = [other for other in found if other.startswith(f"{path}.")]
        if isinstance(value, Mapping) and value:
            found.pop(path, None)
            _note(found, value, f"{path}.", origin)
        elif not (isinstance(value, Mapping) and below):
            for other in below:
                del found[other]
            found[path] = origin


def _leaves(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _resolved(cfg: DictConfig, key: str, written: Any) -> Any:
    """The value; as it is written where it is missing, or refers to what the command adds only later."""
    try:
        value = OmegaConf.select(cfg, key, throw_on_missing=True)
    except OmegaConfBaseException:
        return written
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
