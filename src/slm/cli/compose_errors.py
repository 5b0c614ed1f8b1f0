"""What Hydra and OmegaConf complain about, said so that the user can mend it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from slm.errors import did_you_mean, nearest
from slm.training.config import DERIVED, derived_setting

_COULD_NOT_OVERRIDE = re.compile(r"Could not override '([^']+)'")


def explain(error: BaseException | None, config_name: str, arguments: Sequence[str]) -> str | None:
    """One line for a mistake in the command line or a config file; None for any other error."""
    if isinstance(error, MissingConfigException):
        return _missing_config(error)
    if isinstance(error, OverrideParseException):
        if "=" not in str(error.override):
            return f"cannot read '{error.override}': a setting is key=value"
        return (
            f"cannot read '{error.override}': {_first_line(error)}; quote values with spaces or brackets twice, "
            "e.g. 'key=\"a b\"'"
        )
    if isinstance(error, MissingMandatoryValue):
        key = error.full_key
        return f"{key} is missing; set it: {key}=…"
    if isinstance(error, ConfigCompositionException):
        found = _COULD_NOT_OVERRIDE.search(str(error))
        if found:
            return _unknown_key(found.group(1), config_name, arguments) or _one_line(error)
    if isinstance(error, ValueError) and "Config group override" in str(error):  # model=null, model=3
        return f"{_one_line(error)}; a group takes the name of one of its choices, e.g. model=base"
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return _one_line(error) or explain(error.__cause__, config_name, arguments)
    return None


def _missing_config(error: MissingConfigException) -> str:
    wanted = str(error.missing_cfg_file or "")
    group, _, choice = wanted.rpartition("/")
    options = list(error.options or [])
    if not group or not options:
        return _one_line(error)
    return f"{group} has no choice '{choice}'{did_you_mean(choice, options)} (choices: {', '.join(options)})"


def _unknown_key(key: str, config_name: str, arguments: Sequence[str]) -> str | None:
    """The line for a key that is in no config, with the nearest one that is; None if the key is known."""
    base = key.split("@")[0]
    known = list(_known_keys(config_name, arguments))
    if base in known:
        return None
    section, _, name = base.rpartition(".")
    if section == "trainer" and name in DERIVED:
        return derived_setting(name)
    suggestion = nearest(base, known) or (None if section else _by_last_part(base, known))
    hint = f"; did you mean '{suggestion}'?" if suggestion else ""
    parent = base.rpartition(".")[0]
    siblings = [k.rpartition(".")[2] for k in known if k.rpartition(".")[0] == parent]
    where = f" (under '{parent}': {', '.join(siblings)})" if parent and siblings else ""
    return f"unknown key '{key}'{hint}{where}"


def _by_last_part(key: str, known: list[str]) -> str | None:
    """A known key that ends as `key` does: `max_steps` for `trainer.max_steps`."""
    last = {k.rpartition(".")[2]: k for k in reversed(known)}
    match = nearest(key.rpartition(".")[2], last)
    return last[match] if match else None


def _known_keys(config_name: str, arguments: Sequence[str]) -> Iterator[str]:
    """Groups and dotted keys of the config as composed with the choices made on the command line."""
    from slm.cli.help import choices

    hydra = GlobalHydra.instance()
    if not hydra.is_initialized():
        from hydra import initialize_config_module

        initialize_config_module("slm.conf", version_base="1.3")
        hydra = GlobalHydra.instance()
    chosen = []
    for argument in arguments:
        group, separator, choice = argument.partition("=")
        if separator and choice in choices(group):
            chosen.append(argument)
    loader = hydra.config_loader()
    from hydra.types import RunMode

    config = loader.load_configuration(config_name=config_name, overrides=chosen, run_mode=RunMode.RUN)
    yield from _dotted(config, "")


def _dotted(node: Any, prefix: str) -> Iterator[str]:
    content: Any = OmegaConf.to_container(node, resolve=False) if isinstance(node, DictConfig) else node
    for key, value in content.items():
        if prefix == "" and key == "hydra":
            continue
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
