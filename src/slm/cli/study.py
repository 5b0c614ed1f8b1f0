"""What ``slm-train -m`` does: a study is begun, gone on with or joined, and told of."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from slm.cli.command import USER_ERROR_STATUS, fail
from slm.errors import UserError
from slm.masking import MASK
from slm.notices import notice
from slm.study.run_record import TABLE_FILE
from slm.study.sweep.asked import STUDY_FILE, Asked, read_asked
from slm.study.sweep.config import SweepConfig, sweep_config
from slm.study.sweep.server import TrialServer
from slm.study.sweep.space import Interval, Space, space_of
from slm.study.sweep.study import Study, asked_now, refuse_another, remove_claims
from slm.study.sweep.sweeping import Sweeping
from slm.study.sweep.table import write_table
from slm.study.sweep.told import watchers
from slm.study.sweep.trials import Trial
from slm.training.run.checkpoint_files import checkpoints_of
from slm.training.run.folder import as_one_types_it


@dataclass(frozen=True)
class Typed:
    """A command line of a sweep, taken apart."""

    fixed: list[str]  # settings of every trial
    space: Space
    flags: list[str]  # where else Hydra looks for choices
    folder: Path  # the study's, if it is a new one
    is_named: bool  # it was typed
    resume: str  # where a trial begins that has no checkpoint of its own yet; "auto" for anew


def go_on(typed: Typed, config: SweepConfig) -> None:
    """Do the trials of the study that is meant, and tell of it; exits with 2 or 1 if some failed."""
    if config.join is not None:
        study, fixed = _joined(Path(config.join), typed, config)
    else:
        study, fixed = _of_command(typed, config), typed.fixed
        study.open()
    if typed.resume not in ("auto", "null"):
        fixed = [*fixed, f"resume={typed.resume}"]
    _say_what_varies(study)
    words = [sys.argv[0], *study.asked.flags, *fixed]
    command = partial(_command, words, as_one_types_it(study.folder, Path(study.asked.directory)))
    make_server = partial(
        TrialServer, "slm.cli.trial", config.threads or study.asked.threads, study.config.memory_bytes
    )
    if not study.is_over():
        with watchers(study) as told:
            Sweeping(study, command, make_server, told, waits=config.join is None).run()
    _tell(study)


def _command(begin: list[str], folder: Path, trial: Trial, stop_at: int | None) -> list[str]:
    """A trial's words: those of a run of its own, gone on with where it has a checkpoint."""
    run = folder / trial.folder
    varied = [f"{key}={value}" for key, value in trial.values.items()]
    stop = [] if stop_at is None else [f"stop_after={stop_at}"]
    has_own = bool(checkpoints_of(run))
    given = [word for word in begin if not (word.startswith("resume=") and has_own)]
    resume = [] if any(word.startswith("resume=") for word in given) else ["resume=auto"]
    return [*given, *varied, f"run_dir={run}", *resume, *stop]


# ---- which study ----


def _of_command(typed: Typed, config: SweepConfig) -> Study:
    """The one in the folder that was named; else the newest with the same settings that is not over, else a new one."""
    threads = config.threads or _threads(config)
    now = asked_now(typed.folder, (typed.flags, typed.fixed), typed.space, config, threads)
    if not typed.is_named:
        for folder in sorted(typed.folder.parent.glob(f"*/{STUDY_FILE}"), reverse=True):
            there = read_asked(folder.parent)
            if there is not None and _is_same(folder.parent, there, now):
                study = Study(folder.parent, there, config)
                if not study.is_over():
                    notice(f"goes on with the sweep in {folder.parent}")
                    return study
    there = read_asked(typed.folder)
    if there is None:
        return Study(typed.folder, now, config)
    refuse_another(typed.folder, there, now)
    return Study(typed.folder, there, config)


def _is_same(folder: Path, there: Asked, now: Asked) -> bool:
    try:
        refuse_another(folder, there, now)
    except UserError:
        return False
    return there.directory == now.directory


def _joined(folder: Path, typed: Typed, config: SweepConfig) -> tuple[Study, list[str]]:
    """The study to join, and what its trials are given: what was typed where it began, secrets from this command."""
    asked = read_asked(folder)
    if asked is None:
        raise UserError(f"sweep.join: '{folder}' holds no sweep ({STUDY_FILE}); give the folder that another one tells")
    own = {setting.partition("=")[0]: setting for setting in typed.fixed}
    fixed = [own.pop(one.partition("=")[0], one) if MASK in one else one for one in asked.fixed]
    if own or typed.space != Space(()):
        raise UserError(f"sweep.join: the study has its settings; leave out {next(iter(own.values()), 'what varies')}")
    storage = config.storage or asked.sweep["storage"]
    if hidden := next((one for one in [*fixed, f"sweep.storage={storage}"] if MASK in one), None):
        raise UserError(f"sweep.join: {hidden} is a secret that the study does not keep; type it again")
    of_study = {
        **asked.sweep,
        "storage": storage,
        "workers": config.workers,
        "join": config.join,
        "retry_failed": False,
    }
    return Study(folder, asked, sweep_config(of_study)), fixed


def _threads(config: SweepConfig) -> int:
    """Cores that this process may use, shared out."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // config.workers)


# ---- what is told ----


def _say_what_varies(study: Study) -> None:
    threads = "1 thread" if study.asked.threads == 1 else f"{study.asked.threads} threads"
    notice(f"study {as_one_types_it(study.folder)}: workers {study.config.workers}, {threads} a trial")
    for one in space_of(study.asked.space).dimensions:
        if isinstance(one, Interval) and not one.is_log and one.low > 0 and one.high / one.low >= 100:
            notice(f"{one.key}: every number from {one.low:g} to {one.high:g} is as likely; "
                   f"{one.key}=tag(log,interval(…)) for every order of magnitude")  # fmt: skip


def _tell(study: Study) -> None:
    """The run folders on stdout, the rest on stderr."""
    trials, folder = study.all(), as_one_types_it(study.folder)
    write_table(study.folder, trials, study.asked.fixed)
    for trial in trials:
        if trial.state in ("done", "pruned") and trial.outcome and trial.outcome.figures:
            print(folder / trial.folder)
    if not study.is_over():
        notice(f"sweep: {sum(not trial.is_over for trial in trials)} trials are done elsewhere")
        return
    remove_claims(study)
    failed = [trial for trial in trials if trial.state == "failed"]
    pruned = sum(trial.state == "pruned" for trial in trials)
    notice(f"sweep: {len(trials)} runs, {pruned} pruned, {len(failed)} failed, table in {folder / TABLE_FILE}")
    if failed:
        outcomes = [trial.outcome for trial in failed if trial.outcome]
        status = USER_ERROR_STATUS if all(one.mistake for one in outcomes) else 1
        fail("\n".join(f"trial {trial.folder}: {trial.outcome.error}" for trial in failed if trial.outcome), status)
