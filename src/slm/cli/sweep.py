"""``slm-train -m``: Hydra's words for what varies, and the sweeper that hands them to a study."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from slm.cli.command import as_typed, read
from slm.cli.paths import PATHS
from slm.errors import UserError
from slm.notices import notice
from slm.study.sweep.config import SweepConfig, sweep_config
from slm.study.sweep.space import Choice, Dimension, Interval, Space

_VALIDATIONS = 9  # the first rung of a pruner is a ninth of a run (`slm.study.sweep.halving`)
_OF_THE_SWEEP = re.compile(r"\+*(sweep([.=].*)?|resume|run_dir)")  # keys that no trial is given


class StudySweeper(Sweeper):
    """Trials that survive: see `slm.study.sweep`."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.hydra_context = config, hydra_context

    def sweep(self, arguments: list[str]) -> None:
        from slm.cli.study import Typed, go_on

        assert self.config is not None
        assert self.hydra_context is not None
        values: Any = OmegaConf.to_container(self.config.sweep, resolve=True)
        config = sweep_config(values)
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = [one for one in parser.parse_overrides(arguments) if not _OF_THE_SWEEP.fullmatch(_key(one))]
        hydra: Sequence[str] = self.config.hydra.overrides.hydra
        typed = Typed(
            fixed=_typed([str(one.input_line) for one in overrides if not one.is_sweep_override()]),
            space=space_of_overrides([one for one in overrides if one.is_sweep_override()], config),
            flags=_flags([one for one in hydra if one.startswith("hydra.searchpath=")]),
            folder=Path(self.config.hydra.sweep.dir),
            is_named=any(one.startswith("hydra.sweep.dir=") for one in hydra),
            resume=next(
                (str(one.value()) for one in parser.parse_overrides(arguments) if _key(one) == "resume"), "auto"
            ),
        )
        if config.pruner != "none":
            _say_if_rare(self.config.trainer.val_every, self.config.trainer.max_steps)
        go_on(typed, config)


def _say_if_rare(val_every: Any, steps: Any) -> None:
    """Rules that stop settings can do so at a validation alone."""
    if isinstance(val_every, int) and isinstance(steps, int) and val_every * _VALIDATIONS > steps:
        few = f"validates every {val_every} of {steps} steps, and settings are stopped there alone"
        notice(f"sweep.pruner: a trial {few}; trainer.val_every={max(1, steps // _VALIDATIONS)} saves more")


def register() -> None:
    """Make our sweeper known to Hydra, which takes plugins of the package `hydra_plugins` alone, by their full name.
    Only for a sweep: what lay in that package every command would look through and import."""
    plugins = Plugins.instance()
    package = sys.modules.setdefault("hydra_plugins", ModuleType("hydra_plugins"))
    vars(package)["slm"] = sys.modules["hydra_plugins.slm"] = sys.modules[__name__]
    StudySweeper.__module__ = "hydra_plugins.slm"
    plugins.register(StudySweeper)


def space_of_overrides(varied: Sequence[Override], config: SweepConfig) -> Space:
    """What varies, as it was typed; `UserError` where a grid has no end of values, or a seed is not one of several."""
    dimensions: list[Dimension] = []
    seeds: tuple[str | None, ...] = (None,)
    for override in varied:
        dimension = _dimension(override, config.kind == "grid")
        if dimension.key != "seed":
            dimensions.append(dimension)
        elif isinstance(dimension, Choice):
            seeds = dimension.values
        else:
            raise UserError(f"{override.input_line}: seeds repeat a setting; name them, e.g. seed=1,2,3")
    return Space(tuple(dimensions), seeds)


def _dimension(override: Override, is_grid: bool) -> Dimension:
    key, value = str(override.get_key_element()), override.value()
    if isinstance(value, IntervalSweep):
        if is_grid:
            raise UserError(
                f"{override.input_line}: a grid takes every value, and an interval has no end of them; "
                "sweep=random and sweep=tpe draw from it"
            )
        low, high = float(value.start or 0), float(value.end or 0)
        is_int = isinstance(value.start, int) and isinstance(value.end, int) and "int" in str(override.input_line)
        if not low < high:
            raise UserError(f"{override.input_line}: the first number must be below the second")
        is_log = "log" in value.tags
        if is_log and low <= 0:
            raise UserError(f"{override.input_line}: on a logarithmic scale both numbers are above 0")
        return Interval(key, low, high, is_log, is_int)
    assert isinstance(value, RangeSweep) or override.is_discrete_sweep()
    texts = _typed([f"{key}={text}" for text in override.sweep_string_iterator()])
    return Choice(key, tuple(dict.fromkeys(text.partition("=")[2] for text in texts)))


def _key(override: Override) -> str:
    return str(override.get_key_element())


def _typed(overrides: Sequence[str]) -> list[str]:
    return as_typed(overrides, PATHS)


def _flags(searched: Sequence[str]) -> list[str]:
    config_dir = read(sys.argv[1:]).config_dir
    return [*([] if config_dir is None else [f"--config-dir={config_dir.absolute()}"]), *searched]
