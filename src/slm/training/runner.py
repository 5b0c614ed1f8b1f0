"""One training run, top to bottom: data, model, trainer, fit, summary."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import OmegaConf
from pytorch_lightning.loggers import Logger
from torch import nn
from torch.optim import Optimizer

from slm.errors import Stopped, UserError
from slm.masking import masked, masked_argument
from slm.models.kernels.waiting import heed_others
from slm.models.summary import summarize
from slm.notices import notice
from slm.training.compiled import Compiled
from slm.training.freed_memory import keep_freed_memory
from slm.training.lightning_seams import leave_signals_alone, log_under_own_steps
from slm.training.lit_module import LanguageModelModule
from slm.training.optim.config import with_warmup_steps
from slm.training.optim.optimizers import say_unread
from slm.training.optim.schedules import lr_factor
from slm.training.parts import (
    Devices,
    bad_steps_callback,
    callbacks_of,
    check_callbacks,
    check_trainable,
    check_validation,
    checkpoints_callback,
    fit_vocabulary,
    is_progress_bar,
    loggers_of,
    make_trainer,
    optimizer_factory,
    precision_of,
    recompute_blocks,
    start_model,
    without_fused,
)
from slm.training.plan import describe_plan, resolved, settings_for_loggers, with_batches, with_steps
from slm.training.precision import Precision
from slm.training.quiet import quiet_lightning
from slm.training.ranks import is_first_rank, is_rank_of_lightning, own_ranks
from slm.training.run import folder as run_folder
from slm.training.run.averaged_weights import AveragedWeights
from slm.training.run.checkpoint_files import newest_whole, say_what_is_taken
from slm.training.run.lock import only_writer
from slm.training.run.provenance import environment, provenance
from slm.training.run.random_state import RandomState
from slm.training.run.resume import Resumed
from slm.training.run.stop_signals import StopSignals
from slm.training.run.stops import BrokenOff, PlannedStop, StopOnSignal
from slm.training.run_config import START_BUNDLE, RunConfig
from slm.training.summary import describe, logged_by_others, summarize_run
from slm.training.tasks.task import Preparing, TaskData
from slm.training.watch.start import FrozenGarbage, LoggedSettings, say_batch, say_what_is_made_again
from slm.training.watch.train_metrics import TrainMetrics
from slm.weights.bundle import write_bundle
from slm.weights.pretrained import PUBLISHED_DTYPE


@dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes:
        val_loss: of the best model, in nats per token; nan if there was no validation.
        run_dir: where everything is.
    """

    val_loss: float
    run_dir: Path


class RunBrokeOffError(RuntimeError):
    """Says at which step, and how to go on; what happened is its cause."""


def train(
    config: RunConfig, composed: Mapping[str, Any], overrides: list[str], more_callbacks: Sequence[pl.Callback] = ()
) -> Result:
    """Train as `config` says.

    Args:
        config: checked.
        composed: the same as plain types, written to ``config.yaml``.
        overrides: the command line's, kept for `resume`.
        more_callbacks: added to those of the config, last.

    Raises:
        UserError: before anything is written to the run folder.
        Stopped: a signal asked for it; says how to go on.
        RunBrokeOffError: a part of the run failed in a way that none of its own errors tells.
    """
    with only_writer(config.run_dir) if is_first_rank() else nullcontext(), StopSignals() as signals:
        try:
            return _train(config, composed, overrides, more_callbacks, signals)
        except Stopped as stop:
            if is_rank_of_lightning():
                raise SystemExit(0) from None
            raise Stopped(f"{stop}; {_how_to_go_on(config.run_dir)}") from None


def _train(
    config: RunConfig,
    composed: Mapping[str, Any],
    overrides: list[str],
    more_callbacks: Sequence[pl.Callback],
    signals: StopSignals,
) -> Result:
    quiet_lightning()
    keep_freed_memory()
    threads_wait = heed_others()
    checkpoint = _checkpoint_to_go_on_from(config)
    resumed = Resumed(checkpoint) if checkpoint else None
    resumed_step = resumed.step if resumed else None
    if config.trainer.max_steps and (done := _nothing_left(config, resumed)):
        return done
    optimizer_factory(with_warmup_steps(config.optimizer, 1), config.adapter is not None)  # refuses what it can
    own_callbacks = callbacks_of(config)
    loggers = loggers_of(config, resumed_step)
    devices = Devices.of(config.trainer.lightning)
    config = with_batches(config, devices.kind, devices.count)
    accumulate = config.trainer.accumulation(devices.count)
    began = time.perf_counter()
    data = config.task.data(config)
    notice(data.said)
    check_validation(data.datamodule, config.trainer.lightning.get("limit_val_batches"), devices.count)
    config = with_steps(config, data.datamodule, devices.count)
    if done := _nothing_left(config, resumed):
        return done
    last_step = _last_step(config)
    make_optimizer = optimizer_factory(config.optimizer, config.adapter is not None)
    model_config = fit_vocabulary(config, data.tokenizer, resumed=checkpoint is not None)
    pl.seed_everything(config.seed, verbose=False)
    model = start_model(config, model_config, data.tokenizer, resumed=checkpoint is not None)
    notice(f"model {model_config.name}\n{summarize(model)}")
    check_trainable(model)

    precision = precision_of(config, devices.kind, model_config, resumed=checkpoint is not None)
    notice(f"precision {precision.name} ({precision.reason})")
    notice(describe_plan(config, composed, data.datamodule, devices.count))
    numbers = resolved(config, composed, precision.name, model_config)
    if data.prepare is not None:
        resumed_from = run_folder.run_of_checkpoint(checkpoint) if checkpoint else None
        data.prepare(model, Preparing(devices.kind, precision.name, resumed_from))
    module = _module(config, model, data, make_optimizer, precision)
    check_callbacks([*own_callbacks, *more_callbacks], module)
    if config.trainer.recompute:
        recompute_blocks(model)
    say_unread(module.build_optimizer(), config.optimizer)
    checkpoints = checkpoints_callback(config, model_config, data, checkpoint)
    callbacks = [
        broken_off := BrokenOff(),
        LoggedSettings(settings_for_loggers(composed, numbers, model_config)),
        bad_steps_callback(config, checkpoint),
        TrainMetrics(config.trainer.log_every),
        *data.callbacks,
        *own_callbacks,
        *more_callbacks,
        FrozenGarbage(),
        *([Compiled()] if config.trainer.compile else []),
        RandomState(),
        AveragedWeights(),
        PlannedStop(last_step, config.trainer.val_every, config.trainer.max_time),
        checkpoints,
        StopOnSignal(signals, config.trainer.val_every, checkpoints.save_now),
    ]
    if resumed:
        if not _is_over(config, resumed):
            resumed.check_ends_after(last_step)
        resumed.check_data(data.datamodule)
        resumed.check_model(model)
        resumed.check_optimizer(module.build_optimizer())

    trainer = make_trainer(
        **_lightning_settings(config, accumulate),
        precision=precision.name,
        enable_progress_bar=any(map(is_progress_bar, callbacks)),
        plugins=[checkpoints.writer],
        callbacks=callbacks,
        logger=list(loggers.values()),
    )
    leave_signals_alone(trainer)
    log_under_own_steps(trainer)
    windows = config.trainer.windows_at_once * devices.count * accumulate
    say_batch(windows, devices.count, run_folder.read_record(config.run_dir) if resumed else {})
    about = {
        "environment": environment(trainer.world_size),
        "threads_wait": threads_wait,
        "global_batch_size": windows,
        "template_time": config.template_time.isoformat(),
    }
    session = {**provenance(), **about}
    _open_run_folder(config, composed, overrides, data, precision, numbers, loggers, session)
    _keep_start(config, resumed=checkpoint is not None)
    notice(f"run folder {config.run_dir}" + (f", resumed at step {resumed_step}" if checkpoint else ""))
    if resumed_step is not None:
        say_what_is_made_again(config.run_dir / run_folder.METRICS_FILE, resumed_step)
    _fit(trainer, module, data, checkpoint, broken_off, config.run_dir)
    if resumed and not _is_over(config, resumed) and trainer.global_step == resumed_step:
        notice("no step was made: a callback asked for the end before the first one")
    summary = summarize_run(trainer, module, callbacks, time.perf_counter() - began)
    summary |= logged_by_others(config.run_dir / run_folder.METRICS_FILE, summary)
    if trainer.is_global_zero:
        unwritten = _write_summary(config.run_dir, summary)
        notice(describe(summary, config.run_dir, config.trainer.steps))
        _refuse_unsaved(checkpoints.failure or unwritten, config.run_dir)
    return Result(summary["best_val_loss"], config.run_dir)


def _last_step(config: RunConfig) -> int:
    return min(config.trainer.steps, config.stop_after or config.trainer.steps)


def _is_over(config: RunConfig, resumed: Resumed) -> bool:
    return config.resume == "auto" and resumed.step >= _last_step(config)


def _nothing_left(config: RunConfig, resumed: Resumed | None) -> Result | None:
    """What a run came to that is at its end and has been summed up."""
    if resumed is None or not _is_over(config, resumed):
        return None
    done = run_folder.read_summary(config.run_dir)
    if done.get("step") != resumed.step:
        return None
    notice(f"nothing is left to do: '{config.run_dir}' is at step {resumed.step} of {config.trainer.steps}")
    return Result(done["best_val_loss"], config.run_dir)


def _checkpoint_to_go_on_from(config: RunConfig) -> Path | None:
    """The run folder made ready: free, or that of the run to go on with; None for a new run."""
    checkpoint = run_folder.checkpoint_to_resume(config.resume, config.run_dir)
    run_folder.check_free(config.run_dir, checkpoint)
    if checkpoint:
        say_what_is_taken(checkpoint)
    if is_first_rank():
        run_folder.remove_leftovers(config.run_dir)
    return checkpoint


def _module(
    config: RunConfig, model: nn.Module, data: TaskData, make_optimizer: partial[Optimizer], precision: Precision
) -> LanguageModelModule:
    return (data.make_module or LanguageModelModule)(
        model,
        make_optimizer=without_fused(make_optimizer) if precision.name == "16-mixed" else make_optimizer,
        weight_decay=float(config.optimizer.get("weight_decay", 0.0)),
        lr_factor=lr_factor(config.scheduler, config.trainer.steps),
        grad_clip=config.trainer.grad_clip,
        val_shares=data.val_shares,
        tokenizer=data.tokenizer,
        generation=replace(config.generation, chat=data.chat),
    )


def _lightning_settings(config: RunConfig, accumulate: int) -> dict[str, Any]:
    """Those of Lightning's Trainer that follow from the configuration alone; periods count micro-batches there."""
    return {
        **{name: value for name, value in config.trainer.lightning.items() if name != "enable_progress_bar"},
        "max_steps": config.trainer.steps,
        "max_epochs": -1,
        "accumulate_grad_batches": accumulate,
        "val_check_interval": config.trainer.val_every * accumulate,
        "log_every_n_steps": config.trainer.log_every,
        "check_val_every_n_epoch": None,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
        "enable_model_summary": False,
        "default_root_dir": config.run_dir,
    }


def _fit(
    trainer: pl.Trainer,
    module: LanguageModelModule,
    data: TaskData,
    checkpoint: Path | None,
    broken_off: BrokenOff,
    run: Path,
) -> None:
    try:
        with own_ranks():
            trainer.fit(module, datamodule=data.datamodule, ckpt_path=checkpoint)
    except SystemExit:
        if trainer.interrupted:  # Lightning makes a status of 1 of Ctrl-C
            raise KeyboardInterrupt(f"interrupted; {_how_to_go_on(run)}") from None
        raise
    except UserError:
        raise
    except Exception as error:
        message = f"the run broke off {broken_off.where} ({type(error).__name__}); {_how_to_go_on(run)}"
        raise RunBrokeOffError(message) from error


def _write_summary(run: Path, summary: dict[str, Any]) -> OSError | None:
    try:
        run_folder.write_json(run / run_folder.SUMMARY_FILE, summary)
    except OSError as error:
        return error
    return None


def _refuse_unsaved(failure: OSError | None, run: Path) -> None:
    """Raise `UserError` if the run's end is not on the disk: all is done that could be, but all is not well."""
    if failure is not None:
        newest = newest_whole(run)
        mend = f"make room and go on from '{newest}' (resume={run})" if newest else "make room and start again"
        raise UserError(f"the end of the run is not saved ({failure}); {mend}")


# ---- run folder ----


def _open_run_folder(
    config: RunConfig,
    composed: Mapping[str, Any],
    overrides: list[str],
    data: TaskData,
    precision: Precision,
    numbers: Mapping[str, Any],
    loggers: Mapping[str, Logger],
    session: Mapping[str, Any],
) -> None:
    if not is_first_rank():
        return
    config.run_dir.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(OmegaConf.create(masked(composed)), config.run_dir / run_folder.CONFIG_FILE)
    if data.keep is not None:
        data.keep(config.run_dir)
    earlier = run_folder.read_record(config.run_dir).get("sessions", [])
    overrides = [masked_argument(override) for override in overrides]
    run_folder.write_json(
        config.run_dir / run_folder.RECORD_FILE,
        {
            "overrides": overrides,
            run_folder.DIRECTORY: str(Path.cwd()),
            "precision": precision.name,
            "resolved": dict(numbers),
            "data_fingerprint": data.datamodule.fingerprint,
            **({"data": dict(data.report)} if data.report else {}),
            "logger_ids": {name: str(logger.version) for name, logger in loggers.items()},
            "sessions": [*earlier, session],
        },
    )


def _keep_start(config: RunConfig, resumed: bool) -> None:
    """Write the shape and the tokenizer of the weights, and those themselves where checkpoints leave them out: they may
    be gone when the run is resumed."""
    place = config.run_dir / START_BUNDLE
    if config.start is None or not is_first_rank() or (resumed and place.is_dir()):
        return
    weights = config.start.weights() if config.adapter is not None else {}
    facts = {**config.start.facts, PUBLISHED_DTYPE: config.start.published_dtype}
    write_bundle(place, config.start.config, weights, config.start.tokenizer, facts)


def _how_to_go_on(run: Path) -> str:
    last = newest_whole(run)
    if last is None:
        return "that was before the first checkpoint (trainer.save_every), so the run begins anew"
    return f"go on from step {Resumed(last).step}: slm-train resume={run}"
