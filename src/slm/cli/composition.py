"""Hydra's composition without its job: to look at a configuration, or for what is wrong with a command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.singleton import Singleton
from hydra.core.utils import JobRuntime, setup_globals
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from slm.errors import UserError

T = TypeVar("T")
CONFIG = "pkg://slm.conf"


def config_loader(config_dir: Path | None) -> ConfigLoaderImpl:
    """A loader of our groups and choices, and before them those of the user's own folder."""
    path = create_config_search_path(CONFIG)
    if config_dir is not None:
        path.prepend("command-line", f"file://{config_dir.absolute()}", SearchPathQuery(provider="schema"))
    return ConfigLoaderImpl(path)


def compose(loader: ConfigLoaderImpl, config_name: str, overrides: Sequence[str]) -> DictConfig:
    """The configuration, unresolved, with Hydra's own settings under ``hydra``; raises what Hydra does."""
    setup_globals()
    state = Singleton.get_state()
    try:
        JobRuntime.instance().set("name", config_name)
        return loader.load_configuration(config_name, list(overrides), RunMode.RUN)
    finally:
        Singleton.set_state(state)


def checked_values(cfg: DictConfig, check: Callable[[dict[str, Any]], T]) -> tuple[dict[str, Any], T]:
    """The resolved settings as plain types, and what `check` makes of them.

    Raises:
        UserError: what is missing, and all that `check` complains of.
    """
    missing = sorted(key for key in OmegaConf.missing_keys(cfg) if not key.startswith("hydra."))
    values: Any = OmegaConf.to_container(cfg, resolve=True)
    for key in missing:
        _remove(values, key.split("."))
    problems = [f"{key} is missing; set it: {key}=…" for key in missing]
    try:
        result = check(values)
    except UserError as error:
        lines = str(error).splitlines()
        problems += [line for line in lines if not line.startswith(tuple(f"{key} is missing" for key in missing))]
    if problems:
        raise UserError("\n".join(problems))
    return values, result


def without_hydra(cfg: DictConfig) -> DictConfig:
    """`cfg` without Hydra's own settings, as a task gets it."""
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg


def _remove(values: Any, path: Sequence[str]) -> None:
    """Take the key at `path` out of nested mappings; one in a list stays."""
    for part in path[:-1]:
        values = values.get(part) if isinstance(values, Mapping) else None
    if isinstance(values, dict):
        values.pop(path[-1], None)
