"""slm-train: train a model."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slm.cli.app import entry_point
from slm.cli.command import Command, CommandLine, as_typed, quoted, read
from slm.cli.ladder import with_rungs
from slm.cli.paths import PATHS
from slm.cli.result import Result
from slm.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from slm.training.run_config import RunConfig

_HOW_LONG = {"trainer.max_steps", "trainer.max_epochs"}  # each in place of the other
_NOT_REPEATED = ("run_dir", "resume", "stop_after", "json")


def train(values: dict[str, Any], config: RunConfig) -> Result | None:
    """Train; for a person the run folder is printed. The best validation loss (nats per token) is what a sweeper may
    minimise. None of further ranks."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    job = HydraConfig.get()
    minimised = job.mode == RunMode.MULTIRUN and job.runtime.choices["hydra/sweeper"] != "basic"
    if minimised and config.trainer.lightning.get("limit_val_batches") == 0:
        raise UserError("trainer.limit_val_batches=0 leaves no validation loss, which the sweeper is to minimise")

    from slm.training.lean_lightning import import_lightning

    import_lightning()
    from slm.training.runner import train as run
    from slm.training.watch.curve import without_curve
    from slm.training.watch.trial import is_trial, trial_callbacks

    if job.mode == RunMode.MULTIRUN or is_trial():  # a second for a picture of each; slm-report has all
        config = replace(config, callbacks=without_curve(config.callbacks))
    composed = {key: value for key, value in values.items() if key != "json"}
    overrides = _repeatable(as_typed(job.overrides.task, PATHS))
    val_loss = run(config, composed, overrides, trial_callbacks(config.trainer.val_every))
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return None
    return Result(_content(config.run_dir), str(config.run_dir), val_loss)


def _content(run: Path) -> dict[str, Any]:
    """What ``summary.json`` and ``run.json`` say of a session that came to its end."""
    from slm.training.run.folder import read_record, read_summary

    figures, record = read_summary(run), read_record(run)
    state = "done" if figures["step"] >= figures.get("max_steps", 0) else "stopped"  # older versions did not note it
    return {"run_dir": str(run), "state": state, **figures, "parent": record.get("parent")}


def _place(cfg: DictConfig) -> None:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from slm.training.run.folder import as_one_types_it

    job = HydraConfig.get()
    if job.mode != RunMode.MULTIRUN:
        _refuse_of_a_sweep(job.overrides.task)
    cfg.run_dir = str(as_one_types_it(Path(job.runtime.output_dir)))


def checked_run(values: dict[str, Any]) -> RunConfig:
    """The settings of the run alone, typed, whose `values` they are from here on: what sweeps it is checked and taken
    out. `UserError` with all that is wrong."""
    from slm.schema import together
    from slm.study.sweep.config import sweep_config
    from slm.training.run_config import run_config

    sweep = values.pop("sweep")
    _, config = together(lambda: sweep_config(sweep), lambda: run_config(values))
    return config


def _key(argument: str) -> str:
    return argument.partition("=")[0]


def with_implied(arguments: Sequence[str]) -> list[str]:
    """With ``trainer.max_epochs`` no count of steps; with ``model.weights`` their shape and tokenizer, unless named;
    unless something decides otherwise, the optimizer and schedule that weights are usually fine-tuned with."""
    keys = set(map(_key, arguments))
    given = {} if "model.weights" not in keys else {"model": "pretrained", "tokenizer": "pretrained"}
    if given and keys.isdisjoint({"recipe", "experiment"}):
        given |= {"optimizer": "adamw", "scheduler": "cosine"}
    implied = [f"{group}={choice}" for group, choice in given.items() if group not in keys]
    if "trainer.max_epochs" in keys and "trainer.max_steps" not in keys:
        implied.append("trainer.max_steps=null")
    return [*implied, *arguments]


def _with_what_follows(arguments: list[str]) -> list[str]:
    """In a multirun ``run_dir`` is the folder of its runs, which Hydra calls ``hydra.sweep.dir``."""
    arguments = _with_parents(arguments)
    if not read(arguments).is_multirun:
        return with_implied(_with_recorded(arguments))
    arguments = with_rungs(arguments)
    renamed = _of_other_sweepers(arguments)
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key == "run_dir" and "," in value:
            raise UserError(f"run_dir={value}: in a multirun it is the one folder that holds all runs")
        renamed.append(f"hydra.sweep.dir={quoted(value)}" if key == "run_dir" else argument)
    return with_implied(renamed)


def _refuse_of_a_sweep(settings: Sequence[str]) -> None:
    for setting in settings:
        if re.match(r"\+*sweep[.=]", setting):
            raise UserError(f"{setting} is read in a sweep alone; add -m, or leave it out")


def _of_other_sweepers(arguments: Sequence[str]) -> list[str]:
    """A launcher is asked for jobs by Hydra's own sweeper, which is named if none is; ours starts trials by itself."""
    keys = set(map(_key, arguments))
    if "hydra/sweeper" not in keys and ("hydra/launcher" not in keys and os.name != "nt"):
        return []
    choice = [argument for argument in arguments if argument.startswith("hydra/sweeper=")]
    if choice == ["hydra/sweeper=study"]:
        return []
    if any(key.startswith("sweep.") or key == "sweep" for key in keys):
        raise UserError("sweep=… and sweep.… are read by slm's own sweeper; leave out hydra/sweeper and hydra/launcher")
    return [] if choice else ["hydra/sweeper=basic"]


def _with_parents(arguments: list[str]) -> list[str]:
    """The command line of a run that begins from another's checkpoint: what that one was started with, then what is
    new. Of a checkpoint by itself the settings are those that are typed."""
    from slm.training.run.folder import run_of_checkpoint
    from slm.training.run.resume import checkpoint_to_begin_from

    line = read(arguments)
    given = _given(line)
    from_step, resume = given.get("from_step"), given.get("resume")
    if from_step in (None, "null", ""):
        return arguments
    if resume not in (None, "null", "", "auto"):
        raise UserError(f"resume goes on with a run, from_step begins a new one; give either (resume={resume})")
    run = run_of_checkpoint(checkpoint_to_begin_from(from_step))
    if run.is_file():
        return arguments
    return [*line.flags, *_recorded(run, line.settings, line.config_dir is None, "from_step"), *line.settings]


def _given(line: CommandLine) -> dict[str, str]:
    return {key: value for key, _, value in (setting.partition("=") for setting in line.settings)}


def _with_recorded(arguments: list[str]) -> list[str]:
    """The command line of a resumed run: what the run was started with, then what is new. ``resume=auto`` goes on in
    ``run_dir`` if that is given, else in the newest run started with the same settings, if there is one."""
    from slm.masking import masked_argument
    from slm.training.run.folder import run_of_checkpoint
    from slm.training.run.resume import checkpoint_to_resume, newest_run

    line = read(arguments)
    given = _given(line)
    resume = given.get("resume")
    if resume in (None, "null", ""):
        return arguments
    if resume == "auto":
        same = [masked_argument(setting) for setting in _repeatable(with_implied(line.settings))]
        run = Path(given["run_dir"]) if "run_dir" in given else newest_run(Path("outputs"), same)
        if run is None or checkpoint_to_resume("auto", run) is None:
            return arguments
    else:
        checkpoint_to_resume(resume, Path())
        run = run_of_checkpoint(Path(resume).expanduser())
        if run.is_file():  # a checkpoint by itself: the settings are those of this command line
            return arguments
    new = [setting for setting in line.settings if not setting.startswith("resume=")]
    place = [] if "run_dir" in given else [f"run_dir={run}"]
    return [*line.flags, *_recorded(run, new, line.config_dir is None), *new, *place, f"resume={resume}"]


def _recorded(run: Path, typed: Sequence[str], with_config_dir: bool, key: str = "resume") -> list[str]:
    """What of `run`'s command line to repeat beside what is `typed`; `UserError` if it is damaged, masked or unsafe."""
    from slm.masking import MASK
    from slm.training.run.folder import from_start, override_from_start, read_record
    from slm.training.run.former_defaults import defaults_of_then
    from slm.training.run.recorded_code import refuse_unknown_settings

    record, changed = read_record(run), set(map(_key, typed))
    changed |= _HOW_LONG if changed & _HOW_LONG else set()
    kept = [override for override in record.get("overrides", []) if _key(override) not in changed]
    then = defaults_of_then(run, changed, set(map(_key, kept)))
    settings = [override_from_start(override, record) for override in [*kept, *then]]
    if record.get("sessions") and with_config_dir and (folder := read(record["sessions"][-1]["command"]).config_dir):
        settings.insert(0, f"--config-dir={from_start(str(folder), record)}")
    if masked := [setting for setting in settings if MASK in setting]:
        raise UserError(f"{key}: {masked[0]} is a secret that '{run}' does not keep; type it again")
    refuse_unknown_settings(run, settings, typed)
    return settings


def _repeatable(overrides: Collection[str]) -> list[str]:
    return [override for override in overrides if _key(override) not in _NOT_REPEATED]


COMMAND = Command("train", train, checked_run, _with_what_follows, _place, paths=PATHS)
main = entry_point(COMMAND, __name__)
