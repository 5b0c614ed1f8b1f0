"""One training run, top to bottom: begin, build, fit, close."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import OmegaConf

from slm.errors import Stopped, UserError
from slm.masking import masked, masked_argument
from slm.models.flops import training_flops_per_token
from slm.models.kernels.waiting import heed_others
from slm.notices import notice
from slm.training import process
from slm.training.build import Begun, Built, build, is_over, read_data
from slm.training.going_on import keep_what_is_left, schedules_so_far, with_schedule
from slm.training.parts import callbacks_of, devices_of, loggers_of, optimizer_factory
from slm.training.plan import say_batch, with_batches, with_steps
from slm.training.run import folder as run_folder
from slm.training.run.branching import note_branch, parent_of
from slm.training.run.heard_signals import StopSignals
from slm.training.run.lock import only_writer
from slm.training.run.resume import check_free, checkpoint_to_resume, newest_whole, say_what_is_taken
from slm.training.run.resume_checks import Resumed, checkpoint_of_step
from slm.training.run.session_end import noted_end
from slm.training.run.stops import BrokenOff
from slm.training.run_config import START_BUNDLE, RunConfig
from slm.training.summary import describe, summarize_run
from slm.training.watch.csv_logger import say_what_is_made_again
from slm.weights.bundle import write_bundle
from slm.weights.pretrained import PUBLISHED_DTYPE


class RunBrokeOffError(RuntimeError):
    """Says at which step, and how to go on; what happened is its cause."""


def train(
    config: RunConfig, composed: Mapping[str, Any], overrides: list[str], more_callbacks: Sequence[pl.Callback] = ()
) -> float:
    """Train as `config` says; the validation loss of the best model in nats per token, nan without a validation.

    Args:
        config, composed: typed, and as plain types, which are written to ``config.yaml``.
        overrides: the command line's, kept for `resume`.
        more_callbacks: added to those of the config, last.

    Raises:
        UserError: before anything is written to the run folder.
        Stopped: a signal asked for it; says how to go on.
        RunBrokeOffError: a part of the run failed in a way that none of its own errors tells.
    """
    alone = only_writer(config.run_dir) if process.is_first_rank() else nullcontext()
    with alone, StopSignals() as signals, _said_how_to_go_on(config.run_dir):
        resumed = _resumed(config)
        if (done := _done_before(config, resumed)) is not None:
            return done
        begun = _begin(config, resumed)
        data = read_data(begun)
        begun = replace(begun, config=with_steps(begun.config, data.datamodule, begun.n_devices))
        if (done := _done_before(begun.config, resumed)) is not None:
            return done
        begun = with_schedule(begun, config.optimizer)
        broken_off = BrokenOff()
        run = build(begun, data, composed, broken_off, more_callbacks, signals)
        _open_run_folder(run, composed, overrides)
        with noted_end(config.run_dir) if process.is_first_rank() else nullcontext():
            _fit(run, broken_off)
            return _close(run)


@contextmanager
def _said_how_to_go_on(run: Path) -> Iterator[None]:
    try:
        yield
    except Stopped as stop:
        if process.is_rank_of_lightning():
            raise SystemExit(0) from None
        raise Stopped(f"{stop}; {_how_to_go_on(run)}", run_dir=str(run)) from None


# ---- begin: what is known without the data ----


def _resumed(config: RunConfig) -> Resumed | None:
    """The checkpoint to go on from, or to begin from; None for a run from its first step. The run folder is made ready:
    free, or that of the run."""
    checkpoint = checkpoint_to_resume(config.resume, config.run_dir)
    check_free(config.run_dir, checkpoint)
    if checkpoint:
        say_what_is_taken(checkpoint)
    if process.is_first_rank():
        run_folder.remove_leftovers(config.run_dir)
    if checkpoint is None and config.from_step is not None:
        return checkpoint_of_step(config.from_step)
    return Resumed(checkpoint) if checkpoint else None


def _done_before(config: RunConfig, resumed: Resumed | None) -> float | None:
    """The loss of a run that is at its end and has been summed up; None too while its steps are not known."""
    if resumed is None or config.trainer.max_steps is None or not is_over(config, resumed):
        return None
    done = run_folder.read_summary(config.run_dir)
    if done.get("step") != resumed.step:
        return None
    notice(f"nothing is left to do: '{config.run_dir}' is at step {resumed.step} of {config.trainer.steps}")
    return float(done["best_val_loss"])


def _begin(config: RunConfig, resumed: Resumed | None) -> Begun:
    """Refuse what can be refused before the data is read."""
    process.quiet_lightning()
    process.keep_freed_memory()
    threads_wait = heed_others()
    record = run_folder.read_record(config.run_dir)
    make_optimizer = optimizer_factory(config.optimizer, config.adapter is not None)
    callbacks = callbacks_of(config)
    loggers = loggers_of(config, resumed.step if resumed else None, record)
    device, n_devices = devices_of(config.trainer.lightning)
    config = with_batches(config, device, n_devices)
    config.trainer.accumulation(n_devices)
    at = time.perf_counter()
    return Begun(config, resumed, record, make_optimizer, callbacks, loggers, device, n_devices, threads_wait, at)


# ---- fit ----


def _open_run_folder(run: Built, composed: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """Write down what is about to be trained, ahead of the first step, and say where."""
    begun, data = run.begun, run.data
    config, resumed, devices = begun.config, begun.resumed, begun.n_devices
    windows = config.trainer.windows_at_once * devices * config.trainer.accumulation(devices)
    say_batch(windows, devices, begun.record if resumed else {})
    parent = parent_of(resumed, run.anew) if resumed and resumed.begins_new else begun.record.get("parent")
    if process.is_first_rank():
        config.run_dir.mkdir(parents=True, exist_ok=True)
        keep_what_is_left(begun)
        OmegaConf.save(OmegaConf.create(masked(composed)), config.run_dir / run_folder.CONFIG_FILE)
        if data.keep is not None:
            data.keep(config.run_dir)
        session = {
            **process.provenance(run.trainer.world_size),
            "threads_wait": begun.threads_wait,
            "global_batch_size": windows,
            "template_time": config.template_time.isoformat(),
        }
        record: dict[str, Any] = {
            "overrides": [masked_argument(override) for override in overrides],
            run_folder.DIRECTORY: str(Path.cwd()),
            "precision": run.precision,
            "resolved": run.resolved,
            "schedules": schedules_so_far(begun),
            **({"parent": parent} if parent else {}),
            "parameters": sum(parameter.numel() for parameter in run.module.model.parameters()),
            "flops_per_token": training_flops_per_token(run.module.model),
            "data_fingerprint": data.datamodule.fingerprint,
            **({"data": dict(data.report)} if data.report else {}),
            "logger_ids": {name: str(logger.version) for name, logger in begun.loggers.items()},
            "sessions": [*begun.record.get("sessions", []), session],
        }
        run_folder.write_json(config.run_dir / run_folder.RECORD_FILE, record)
        _keep_start(config, resumed=resumed is not None)
        if resumed and resumed.begins_new:
            note_branch(resumed, config.run_dir, record["overrides"])
    notice(f"run folder {config.run_dir}{resumed.in_words() if resumed else ''}")
    if resumed:
        say_what_is_made_again(config.run_dir / run_folder.METRICS_FILE, resumed.step)


def _keep_start(config: RunConfig, resumed: bool) -> None:
    """Write the shape and the tokenizer of the weights, and those themselves where checkpoints leave them out: they may
    be gone when the run is resumed."""
    place = config.run_dir / START_BUNDLE
    if config.start is None or (resumed and place.is_dir()):
        return
    weights = config.start.weights() if config.adapter is not None else {}
    facts = {**config.start.facts, PUBLISHED_DTYPE: config.start.published_dtype}
    write_bundle(place, config.start.config, weights, config.start.tokenizer, facts)


def _fit(run: Built, broken_off: BrokenOff) -> None:
    folder = run.begun.config.run_dir
    try:
        with process.own_ranks():
            run.trainer.fit(run.module, datamodule=run.data.datamodule, ckpt_path=run.begun.checkpoint)
    except SystemExit:
        if run.trainer.interrupted:  # Lightning makes a status of 1 of Ctrl-C
            raise KeyboardInterrupt(f"interrupted; {_how_to_go_on(folder)}") from None
        raise
    except UserError:
        raise
    except Exception as error:
        message = f"the run broke off {broken_off.where} ({type(error).__name__}); {_how_to_go_on(folder)}"
        raise RunBrokeOffError(message) from error


def _how_to_go_on(run: Path) -> str:
    last = newest_whole(run)
    if last is None:
        return "that was before the first checkpoint (trainer.save_every), so the run begins anew"
    return f"go on from step {Resumed(last).step}: slm-train resume={run}"


# ---- close ----


def _close(run: Built) -> float:
    """Sum up; `UserError` if the run's end is not on the disk: all is done that could be, but all is not well."""
    config, trainer, resumed = run.begun.config, run.trainer, run.begun.resumed
    if resumed and not is_over(config, resumed) and trainer.global_step == resumed.step:
        notice("no step was made: a callback asked for the end before the first one")
    table = config.run_dir / run_folder.METRICS_FILE
    summary = summarize_run(trainer, run.module, run.checkpoints, time.perf_counter() - run.begun.at, table)
    if trainer.is_global_zero:
        failure = run.checkpoints.failure
        try:
            run_folder.write_json(config.run_dir / run_folder.SUMMARY_FILE, summary)
        except OSError as error:
            failure = failure or error
        notice(describe(summary, config.run_dir, config.trainer.steps))
        if failure is not None:
            newest = newest_whole(config.run_dir)
            mend = f"go on from '{newest}' (resume={config.run_dir})" if newest else "start again"
            raise UserError(f"the end of the run is not saved ({failure}); make room and {mend}")
    return float(summary["best_val_loss"])
