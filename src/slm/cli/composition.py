"""Hydra's composition without its job: what a configuration is made of, and what Hydra says of a wrong one."""

import functools
import re
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import hydra
import hydra.utils
import yaml
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.utils import run_job
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from hydra.experimental.callback import Callback
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, open_dict
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from slm.cli.command import quoted
from slm.cli.help import choices
from slm.cli.ladder import register_rules
from slm.errors import UserError

CONF = "slm.conf"
VERSION_BASE = {"version_base": "1.3"} if hydra.__version__.startswith("1.3") else {}  # 1.4 has one behaviour alone
# what a command may make are the classes of the user's own settings, and 1.4 asks to say so
OF_MAIN: Any = VERSION_BASE or {"execution_whitelist": vars(hydra.utils)["UNSAFE_DISABLE_EXECUTION_CHECKS"]}
_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
OF_HYDRA = (HydraException, OmegaConfBaseException, ValueError, TypeError)  # what it raises of a wrong command line
_IN_EXTRA = ("joblib", "submitit")
_NO_MATCH = re.compile(r"Could not override '([^']+)'\.?\s*No match in the defaults list")
_COMPOSER = re.compile(r"(hydra|omegaconf|antlr4)\b(?!.*instantiate)")
register_rules()


@dataclass(frozen=True)
class Layer:
    """What a configuration is merged from: a file, or a setting of the command line."""

    content: dict[str, Any] = field(repr=False)  # nested, from the top of the configuration
    setting: str | None = None  # as Hydra reads it; None for a file
    file: str = ""  # of a group's choice: ``optimizer/adamw``, in `folder`
    folder: str = ""  # ``conf`` for ours, else the user's own
    package: str = ""  # dotted place that the file fills

    def __str__(self) -> str:
        return f"{self.folder}/{self.file}.yaml" if self.setting is None else self.setting


PLUGIN = Layer({}, "a plugin")  # in place of what lies elsewhere than in our folder and the user's own


@dataclass(frozen=True)
class Composition:
    """A command's primary config, our groups and choices, and those of the user's own folder."""

    config_name: str
    config_dir: Path | None = None

    @functools.cached_property
    def loader(self) -> ConfigLoader:
        with hydra.initialize_config_module(CONF, self.config_name, **VERSION_BASE):  # it is of use behind it, too
            return GlobalHydra.instance().config_loader()

    def options(self, group: str) -> list[str]:
        """Names of the choices of a group; none for what is no group."""
        if "." in group or "@" in group:
            return []
        sources = [source for source in self.loader.get_sources() if source.is_group(group)]
        listed = [name for source in sources for name in source.list(group, ObjectType.CONFIG)]
        return sorted({*listed, *choices(group, self.config_dir)})

    def layers(self, settings: Sequence[str]) -> list[Layer]:
        """What `composed` merges, in its order, without Hydra's own; raises what Hydra does."""
        listed = self.loader.compute_defaults_list(self.config_name, [*self._own(), *settings], RunMode.RUN)
        ours = [default for default in listed.defaults if str(default.package).partition(".")[0] != "hydra"]
        found = [self._file(str(default.config_path), default.package or "") for default in ours]
        for override in listed.config_overrides:
            if not override.is_delete() and not override.is_hydra_override():
                content = _nested(override.key_or_group, override.value())
                found.append(Layer(content, setting=str(override.input_line)))
        return found

    def job(self, settings: Sequence[str]) -> DictConfig:
        """The configuration, unresolved, with Hydra's own below ``hydra``; raises what Hydra does."""
        return self.loader.load_configuration(self.config_name, [*self._own(), *settings], RunMode.RUN)

    def start(self, cfg: DictConfig, task: TaskFunction) -> Any:
        """What `task` gives of what `job` composed, run as `hydra.main` runs it, which composes all of it twice."""
        context = HydraContext(self.loader, cast(Any, Callback()), **({} if VERSION_BASE else OF_MAIN))
        cfg.hydra.mode = RunMode.RUN
        return run_job(task, cfg, "hydra.run.dir", None, context).return_value

    def composed(self, settings: Sequence[str]) -> DictConfig:
        """The configuration, unresolved, as a task gets it; raises what Hydra does."""
        cfg = self.job(settings)
        with open_dict(cfg):
            del cfg["hydra"]
        return cfg

    def _own(self) -> list[str]:
        if self.config_dir is None:
            return []
        return [f"hydra.searchpath=[{quoted(f'file://{self.config_dir.absolute()}')}]"]

    def _file(self, name: str, package: str) -> Layer:
        for folder, root in (("conf", files(CONF)), (str(self.config_dir), self.config_dir)):
            if root is not None and (file := root.joinpath(*f"{name}.yaml".split("/"))).is_file():
                read: Any = yaml.load(file.read_text(encoding="utf-8"), _YAML)
                said = read if isinstance(read, dict) else {}
                content = {key: value for key, value in said.items() if key != "defaults"}
                return Layer(_nested(package, content), None, name, folder, package)
        return PLUGIN


def _nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".") if key else []):
        value = {part: value}
    return dict(value)


def explain(error: BaseException | None) -> str | None:
    """A user's mistake in our words, also one that Hydra or OmegaConf found; None for any other error."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MissingConfigException):
        return _missing_config(error)
    if isinstance(error, OverrideParseException) and "=" not in str(error.override):
        return f"cannot read '{error.override}': a setting is key=value"
    if isinstance(error, OverrideParseException):
        reason, _, _ = str(error).strip().partition("\n")
        said = f"cannot read '{error.override}': {reason}"
        return f"{said}; quote values with spaces or brackets twice, e.g. 'key=\"a b\"'"
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} is missing; set it: {error.full_key}=…"
    if isinstance(error, ConfigCompositionException) and (found := _NO_MATCH.search(str(error))):
        return f"the configuration has no '{found[1]}' to choose anew; to add one: +{found[1]}=…"
    if isinstance(error, yaml.YAMLError):
        return f"a file of settings is no YAML: {_one_line(error)}"
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return _one_line(error) or explain(error.__cause__)
    if error is not None and _COMPOSER.match(_raised_in(error)):  # model=[1,2] is a TypeError deep inside Hydra
        return (
            f"these settings cannot be composed ({_one_line(error)}); a group takes the name of one of its choices, "
            "e.g. model=base, any other setting a value, key=value"
        )
    return None


def _missing_config(error: MissingConfigException) -> str:
    group, _, choice = str(error.missing_cfg_file or "").rpartition("/")
    plugin = choice.partition("_")[0]
    if group == "hydra/sweeper" and plugin == "optuna":
        return f"{group}={choice} takes Optuna 2 alone; slm's own sweeper uses Optuna 5: sweep=tpe (or sweep=random)"
    if group in ("hydra/sweeper", "hydra/launcher") and plugin in _IN_EXTRA:
        package = f"hydra-{plugin}-{group.removeprefix('hydra/')}"
        return f"{group}={choice} needs the package '{package}': pip install 'slm[sweep]'"
    return _one_line(error)


def _raised_in(error: BaseException) -> str:
    """The module whose code raised it."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return frames[-1].f_globals.get("__name__", "") if frames else ""


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
