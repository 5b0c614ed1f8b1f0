"""slm-train: train a model."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slm.cli.app import run_app
from slm.cli.command import Command
from slm.cli.command_line import as_typed, quoted, read
from slm.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from slm.training.run_config import RunConfig

_PATHS = ("run_dir", "resume", "data.path", "data.val_path", "task.template_file", "model.weights")
_HOW_LONG = {"trainer.max_steps", "trainer.max_epochs"}  # each in place of the other
_NOT_REPEATED = ("run_dir", "resume", "stop_after")


def train(cfg: DictConfig) -> float:
    """The Hydra task: check, train, print the run folder, return the best validation loss (nats per token)."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra_config = HydraConfig.get()
    cfg.run_dir = _shortest(Path(hydra_config.runtime.output_dir))
    composed, config = _checked(cfg)
    minimised = hydra_config.mode == RunMode.MULTIRUN and hydra_config.runtime.choices["hydra/sweeper"] != "basic"
    if minimised and config.trainer.lightning.get("limit_val_batches") == 0:
        raise UserError("trainer.limit_val_batches=0 leaves no validation loss, which the sweeper is to minimise")

    from slm.training.lean_lightning import import_lightning

    import_lightning()
    from slm.training.runner import train as run

    overrides = _repeatable(as_typed(hydra_config.overrides.task, _PATHS))
    result = run(config, composed, overrides)
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(result.run_dir)
    return result.val_loss


def _checked(cfg: DictConfig) -> tuple[dict[str, Any], RunConfig]:
    """The configuration as plain types and as typed ones; raises `UserError` with all that is wrong."""
    from slm.cli.composition import checked_values
    from slm.training.start import run_config

    return checked_values(cfg, run_config)


def main() -> None:
    """Entry point."""
    run_app(Command("train", train, _checked, _with_what_follows, paths=_PATHS))


def _with_what_follows(arguments: list[str]) -> list[str]:
    return implied_arguments(resumed_arguments(_sweep_folder(arguments)))


def implied_arguments(arguments: Sequence[str]) -> list[str]:
    """With ``trainer.max_epochs=…`` no count of steps, unless one is typed; then what `fine_tuning_arguments` adds."""
    keys = {argument.partition("=")[0] for argument in arguments}
    by_passes = "trainer.max_epochs" in keys and "trainer.max_steps" not in keys
    return fine_tuning_arguments([*(["trainer.max_steps=null"] if by_passes else []), *arguments])


def _sweep_folder(arguments: list[str]) -> list[str]:
    """In a multirun ``run_dir`` is the folder of its runs, which Hydra calls ``hydra.sweep.dir``."""
    if not read(arguments).is_multirun:
        return arguments
    for place, argument in enumerate(arguments):
        key, _, value = argument.partition("=")
        if key == "run_dir":
            if "," in value:
                raise UserError(f"run_dir={value}: in a multirun it is the one folder that holds all runs")
            arguments = [*arguments[:place], f"hydra.sweep.dir={quoted(value)}", *arguments[place + 1 :]]
    return arguments


def fine_tuning_arguments(arguments: Sequence[str]) -> list[str]:
    """With ``model.weights=…`` the shape and the tokenizer are the weights' own, unless others are named."""
    keys = {argument.partition("=")[0] for argument in arguments}
    if "model.weights" not in keys:
        return list(arguments)
    chosen = [f"{group}=pretrained" for group in ("model", "tokenizer") if group not in keys]
    return [*chosen, *arguments]


def resumed_arguments(arguments: Sequence[str]) -> list[str]:
    """The command line of a resumed run: what the run was started with, then what is new.

    ``resume=PATH`` goes on in that run's folder with its own settings. ``resume=auto`` does so for
    the folder ``run_dir`` if that is given, else for the newest run started with the same settings;
    where there is none, a new run starts. In a sweep each job looks in its own folder.
    """
    from slm.masking import masked_argument
    from slm.training.run.folder import checkpoint_to_resume, newest_run, run_of_checkpoint

    given = {key: value for key, _, value in (a.partition("=") for a in arguments)}
    resume = given.get("resume")
    if resume in (None, "null", "") or read(arguments).is_multirun:
        return list(arguments)
    line = read(arguments)
    if resume == "auto":
        same = [masked_argument(setting) for setting in _repeatable(implied_arguments(line.settings))]
        run = Path(given["run_dir"]) if "run_dir" in given else newest_run(Path("outputs"), same)
        if run is None or checkpoint_to_resume("auto", run) is None:
            return list(arguments)
    else:
        checkpoint_to_resume(resume, Path())
        run = run_of_checkpoint(Path(resume).expanduser())
        if run.is_file():  # a checkpoint by itself: the settings are those of this command line
            return list(arguments)
    new = [setting for setting in line.settings if not setting.startswith("resume=")]
    changed = {setting.partition("=")[0] for setting in new}
    changed |= _HOW_LONG if changed & _HOW_LONG else set()
    place = [] if "run_dir" in given else [f"run_dir={run}"]
    recorded = repeated_settings(run, changed, new, with_config_dir=line.config_dir is None)
    return [*line.flags, *recorded, *new, *place, f"resume={resume}"]


def repeated_settings(
    run: Path, changed: Collection[str], typed: Sequence[str], with_config_dir: bool = True
) -> list[str]:
    """What of the command line that `run` was started with is to be repeated.

    Args:
        run: its folder.
        changed: keys that are typed anew.
        typed: the settings of this command line.
        with_config_dir: repeat ``--config-dir`` too.

    Raises:
        UserError: the record is damaged; a setting could run code that is not known; or a secret in it is masked.
    """
    from slm.masking import MASK
    from slm.training.run.folder import from_start, override_from_start, read_record
    from slm.training.run.recorded_code import refuse_unknown_settings

    record = read_record(run)
    kept = [o for o in record.get("overrides", []) if o.partition("=")[0] not in changed]
    settings = [override_from_start(override, record) for override in kept]
    if record.get("sessions") and with_config_dir and (folder := read(record["sessions"][-1]["command"]).config_dir):
        settings.insert(0, f"--config-dir={from_start(str(folder), record)}")
    refuse_unknown_settings(run, settings, typed)
    if masked := [setting for setting in settings if MASK in setting]:
        raise UserError(f"resume: {masked[0]} is a secret that '{run}' does not keep; type it again")
    return settings


def _repeatable(overrides: Sequence[str]) -> list[str]:
    return [o for o in overrides if o.partition("=")[0] not in _NOT_REPEATED]


def _shortest(folder: Path) -> str:
    """`folder` relative to here if it is below, as one would type it."""
    return str(folder.relative_to(Path.cwd())) if folder.is_relative_to(Path.cwd()) else str(folder)


if __name__ == "__main__":
    main()
