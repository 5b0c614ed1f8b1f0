"""Code that a run's folder names, and which of it is run: a folder may come from anybody.

It tells later commands which modules to import (`plugins`), which classes to build (`_target_`) and where further YAML
lies (``--config-dir``). What ships with slm, torch and Lightning is built, and so is what packages that declare plugins
define: whoever installed them trusts them. Anything else is typed again, or its module is named (``plugins=[…]``).
"""

import importlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from slm.errors import UserError
from slm.registry import ENTRY_POINT_GROUP, load_plugins
from slm.training.run.folder import CONFIG_FILE, read_config, recorded_plugins

_SHIPPED = re.compile(
    r"(torch\.optim|pytorch_lightning\.callbacks|lightning\.pytorch\.callbacks)\.\w+"
    r"|slm\.training\.(optim\.muon\.Muon|watch\.loggers\.(tensorboard|wandb|trackio)|watch\.\w+\.[A-Z]\w+)"
    r"|schedulefree\.\w+"
)
"""Not all of these packages: `torch.load` unpickles, and a module's names lead to any other module's."""
_SAID_OF_A_LOGGER = re.compile(r"logger\.\w+\.(project|offline|name|notes|tags|group|job_type)")
"""Others can say which server it talks to."""


def refuse_unknown_plugins(run: Path, typed: Collection[str]) -> None:
    """Raise `UserError` if `run` names modules to import that are neither `typed` nor installed as plugins."""
    plugins = recorded_plugins(run)
    if not set(plugins) <= {*typed, *_installed()}:
        raise UserError(
            f"'{run}' wants modules imported, which runs their code; if you trust them, name them: "
            f"plugins=[{','.join(plugins)}]"
        )


def refuse_unknown_code(run: Path, typed: Collection[str], left_out: Collection[str]) -> None:
    """For what builds from ``config.yaml`` as it is: `UserError` if it names code of modules that are neither known nor
    `typed`; from the groups of settings that are `left_out` nothing is built."""
    refuse_unknown_plugins(run, typed)
    config = {group: node for group, node in read_config(run).items() if group not in left_out}
    unknown = [target for target in _targets(config) if not _is_known(target, typed)]
    if unknown:
        raise UserError(
            f"'{run}' would run {unknown[0]}, which its {CONFIG_FILE} names; if you trust it, name its module: "
            f"plugins=[{unknown[0].rpartition('.')[0]}]"
        )


def refuse_unknown_settings(run: Path, recorded: Sequence[str], typed: Sequence[str]) -> None:
    """Raise `UserError` if one of the `recorded` settings, which are about to be repeated, could run unknown code; what
    is `typed` may name modules (``plugins=[…]``) or take a part out (``~callbacks.mine``)."""
    taken_out = tuple(f"{setting[1:]}." for setting in typed if re.fullmatch(r"~\w+(\.\w+)+", setting))
    modules = [module for setting in typed for module in _plugins_in(setting)]
    for setting in recorded:
        stays = not f"{setting.lstrip('+').partition('=')[0]}.".startswith(taken_out)
        if stays and _runs_code(setting, modules):
            raise UserError(
                f"'{run}' may come from anybody, and its setting {setting} could run code; if you trust it, type it "
                "again, else type another value"
            )


def _targets(node: Any) -> Iterator[str]:
    """What is built, and what may become that: a run's configuration was resolved before it was written."""
    if isinstance(node, str) and "${" in node:
        yield node
    if isinstance(node, Mapping):
        yield from (str(target) for key, target in node.items() if key == "_target_")
    for inner in node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ():
        yield from _targets(inner)


def _runs_code(setting: str, modules: Collection[str]) -> bool:
    """Whether a setting may name code: a class, a module, YAML of one's own, a logger's server, or what reads as one of
    these only when it is resolved."""
    key, _, value = setting.lstrip("+~").partition("=")
    first = re.split(r"[./@=]", key)[0]
    if setting.startswith("-") or first == "hydra" or re.search(r"\$\{(?![\w.]+\})", setting):
        return True
    if first == "plugins":
        return key != first or not set(_plugins_in(setting)) <= {*modules, *_installed()}
    if "_target_" in setting:
        return not (re.fullmatch(r"[\w.]+\._target_", key) and _is_known(value, modules))
    if ".." in value and "." not in key.partition("@")[0]:
        return True  # a choice outside conf/
    return key.startswith("logger.") and not _SAID_OF_A_LOGGER.fullmatch(key)


def _plugins_in(setting: str) -> list[str]:
    key, _, value = setting.lstrip("+").partition("=")
    return re.findall(r"[\w.]+", value) if key == "plugins" else []


def _is_known(target: str, modules: Collection[str]) -> bool:
    """Whether it ships with what everybody has, or is defined by one of `modules` or of a plugin (not imported there:
    a module's names may be those of the system)."""
    module, _, name = target.rpartition(".")
    if _SHIPPED.fullmatch(target):
        return True
    if module not in {*modules, *_installed()}:
        return False
    load_plugins([module])
    return getattr(getattr(importlib.import_module(module), name, None), "__module__", None) == module


def _installed() -> set[str]:
    """Modules that installed packages declare as plugins; every command imports them anyway."""
    return {entry_point.module for entry_point in entry_points(group=ENTRY_POINT_GROUP)}
