"""One training run, top to bottom: data, model, trainer, fit, summary."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.utils import instantiate
from omegaconf import OmegaConf
from pytorch_lightning.loggers import Logger
from torch import Tensor, nn
from torch.optim import Optimizer

from slm.bundle import write_bundle
from slm.errors import Stopped, UserError
from slm.masking import masked, masked_argument
from slm.models.config import ModelConfig
from slm.models.modules.build import build_model
from slm.models.modules.lora import add_lora
from slm.models.summary import summarize
from slm.notices import notice
from slm.schema import unknown_key
from slm.sources import RUN_BUNDLE
from slm.tokenizers.base import Tokenizer
from slm.training import run_folder
from slm.training.callbacks.averaged_weights import AveragedWeights
from slm.training.callbacks.bad_steps import BadSteps
from slm.training.callbacks.broken_off import BrokenOff
from slm.training.callbacks.checkpoints import Checkpoints, Period
from slm.training.callbacks.compiled import Compiled
from slm.training.callbacks.garbage import FrozenGarbage
from slm.training.callbacks.random_state import RandomState
from slm.training.callbacks.stop_after import StopAfter
from slm.training.callbacks.stop_on_signal import StopOnSignal
from slm.training.callbacks.train_metrics import TrainMetrics
from slm.training.checkpoint_files import CHECKPOINTS, newest_whole, remove_partials, say_what_is_taken
from slm.training.checkpoint_io import CheckpointWriter
from slm.training.csv_logger import CsvLogger
from slm.training.environment import environment
from slm.training.freed_memory import keep_freed_memory
from slm.training.guarded_logger import guarded
from slm.training.module import LanguageModelModule
from slm.training.precision import Precision, resolve_precision
from slm.training.quiet import quiet_lightning
from slm.training.ranks import is_first_rank, is_rank_of_lightning, own_ranks
from slm.training.recorded_code import SEAL, seal
from slm.training.resume import Resumed
from slm.training.run_config import START_BUNDLE, RunConfig
from slm.training.run_lock import only_writer
from slm.training.schedules import lr_factor
from slm.training.stop_signals import StopSignals, leave_signals_alone
from slm.training.summary import describe, summarize_run
from slm.training.tasks.task import Preparing, TaskData
from slm.weights.adapt import fine_tuned_model


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
    checkpoint = run_folder.checkpoint_to_resume(config.resume, config.run_dir)
    run_folder.check_free(config.run_dir, checkpoint)
    if checkpoint:
        say_what_is_taken(checkpoint)
    if is_first_rank():
        run_folder.remove_leftovers(config.run_dir)
    resumed = Resumed(checkpoint) if checkpoint else None
    resumed_step = resumed.step if resumed else None
    last_step = min(config.trainer.max_steps, config.stop_after or config.trainer.max_steps)
    is_over = resumed is not None and config.resume == "auto" and resumed.step >= last_step
    if is_over and (done := run_folder.read_summary(config.run_dir)).get("step") == resumed_step:
        notice(f"nothing is left to do: '{config.run_dir}' is at step {resumed_step} of {config.trainer.max_steps}")
        return Result(done["best_val_loss"], config.run_dir)
    make_optimizer = _optimizer_factory(config.optimizer)
    own_callbacks = _wanted(config, _instantiate(config.callbacks, "callbacks."))
    loggers = _loggers(config, resumed_step)
    devices = _Devices.of(config.trainer.lightning)
    accumulate = config.trainer.accumulation(devices.count)
    began = time.perf_counter()
    data = config.task.data(config)
    notice(data.said)
    model_config = _fit_vocabulary(config, data.tokenizer)
    pl.seed_everything(config.seed, verbose=False)
    model = _model(config, model_config, resumed=checkpoint is not None)
    notice(f"model {model_config.name}\n{summarize(model)}")
    _check_trainable(model)

    precision = _precision(config, devices.kind, model_config, resumed=checkpoint is not None)
    notice(f"precision {precision.name} ({precision.reason})")
    if data.prepare is not None:
        resumed_from = run_folder.run_of_checkpoint(checkpoint) if checkpoint else None
        data.prepare(model, Preparing(devices.kind, precision.name, resumed_from))
    module = (data.make_module or LanguageModelModule)(
        model,
        make_optimizer=_without_fused(make_optimizer) if precision.name == "16-mixed" else make_optimizer,
        weight_decay=float(config.optimizer.get("weight_decay", 0.0)),
        lr_factor=lr_factor(config.scheduler, config.trainer.max_steps, config.optimizer["lr"]),
        grad_clip=config.trainer.grad_clip,
        tokens_per_byte=data.tokens_per_byte,
        val_shares=data.val_shares,
        tokenizer=data.tokenizer,
        generation=config.generation,
    )
    if config.trainer.recompute:
        recompute_blocks(model)
    checkpoints = _checkpoints(config, model_config, data)
    callbacks = [
        broken_off := BrokenOff(),
        _bad_steps(config, checkpoint),
        TrainMetrics(config.trainer.log_every),
        StopAfter(last_step),
        *data.callbacks,
        *own_callbacks,
        *more_callbacks,
        FrozenGarbage(),
        *([Compiled()] if config.trainer.compile else []),
        RandomState(),
        AveragedWeights(),
        checkpoints,
        StopOnSignal(signals, config.trainer.val_every, checkpoints.save_now),
    ]
    if resumed:
        if not is_over:
            resumed.check_ends_after(last_step)
        resumed.check_data(data.datamodule)
        resumed.check_model(model)
        resumed.check_optimizer(module.build_optimizer())

    trainer = _make_trainer(
        **{**config.trainer.lightning, "enable_progress_bar": any(map(_is_progress_bar, callbacks))},
        precision=precision.name,
        max_steps=config.trainer.max_steps,
        max_epochs=-1,
        accumulate_grad_batches=accumulate,
        val_check_interval=config.trainer.val_every * accumulate,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_model_summary=False,
        default_root_dir=config.run_dir,
        plugins=[checkpoints.writer],
        callbacks=callbacks,
        logger=list(loggers.values()),
    )
    leave_signals_alone(trainer)
    session = {**run_folder.provenance(), "environment": environment(trainer.world_size)}
    _open_run_folder(config, composed, overrides, data, precision, loggers, session)
    _keep_start(config, resumed=checkpoint is not None)
    notice(f"run folder {config.run_dir}" + (f", resumed at step {resumed_step}" if checkpoint else ""))
    try:
        with own_ranks():
            trainer.fit(module, datamodule=data.datamodule, ckpt_path=checkpoint)
    except SystemExit:
        if trainer.interrupted:  # Lightning makes a status of 1 of Ctrl-C
            raise KeyboardInterrupt(f"interrupted; {_how_to_go_on(config.run_dir)}") from None
        raise
    except UserError:
        raise
    except Exception as error:
        message = f"the run broke off {broken_off.where} ({type(error).__name__}); {_how_to_go_on(config.run_dir)}"
        raise RunBrokeOffError(message) from error
    summary = summarize_run(trainer, module, callbacks, time.perf_counter() - began)
    if trainer.is_global_zero:
        unwritten = _write_summary(config.run_dir, summary)
        notice(describe(summary, config.run_dir, config.trainer.max_steps))
        _refuse_unsaved(checkpoints.failure or unwritten, config.run_dir)
    return Result(summary["best_val_loss"], config.run_dir)


def recompute_blocks(model: nn.Module) -> None:
    """Let the transformer's blocks run again in the backward pass; raises `UserError` for a model without any."""
    transformer: Any = getattr(model, "transformer", None)
    if not hasattr(transformer, "recompute"):
        raise UserError(f"trainer.recompute: {type(model).__name__} has no transformer of slm; leave it false")
    transformer.recompute = True


# ---- data and model ----


def _fit_vocabulary(config: RunConfig, tokenizer: Tokenizer) -> ModelConfig:
    needed, given = tokenizer.vocab_size, config.model.params.vocab_size
    if given is None or (config.fine_tuning and config.fine_tuning.grow_vocab and needed > given):
        return config.model.with_vocab_size(needed)
    if given < needed:
        mend = (
            "model.grow_vocab=mean gives the new ones rows"
            if config.fine_tuning
            else "leave it null to take it from the tokenizer"
        )
        raise UserError(f"model.params.vocab_size ({given}) must be at least the tokenizer's {needed}; {mend}")
    return config.model


def _model(config: RunConfig, model_config: ModelConfig, resumed: bool) -> nn.Module:
    in_checkpoint = resumed and config.adapter is None  # else what LoRA leaves as it was is taken from the start again
    if config.start is None or config.fine_tuning is None or in_checkpoint:
        return build_model(model_config)
    model = fine_tuned_model(config.start, model_config, config.fine_tuning.grow_vocab)
    if (lora := config.adapter) is not None:
        add_lora(model, lora.rank, lora.scale, lora.dropout, lora.targets, lora.also_train)
    return model


def _check_trainable(model: nn.Module) -> None:
    if not any(p.requires_grad for p in model.parameters()):
        raise UserError("every module is frozen (freeze: true): there is nothing to train; unfreeze one")


# ---- trainer ----


@dataclass(frozen=True)
class _Devices:
    kind: str
    count: int

    @classmethod
    def of(cls, lightning: Mapping[str, Any]) -> _Devices:
        """What Lightning will run on, asked of Lightning itself before the real Trainer is made."""
        keys = ("accelerator", "devices", "num_nodes", "strategy")
        probe = _make_trainer(
            **{k: lightning[k] for k in keys if k in lightning},
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        return cls(probe.strategy.root_device.type, probe.world_size)


def _make_trainer(**settings: Any) -> pl.Trainer:
    try:
        return pl.Trainer(**settings)
    except Exception as error:  # Lightning raises several kinds for what it cannot do
        raise UserError(f"trainer: {' '.join(str(error).split())}") from error


def _precision(config: RunConfig, device: str, model: ModelConfig, resumed: bool) -> Precision:
    recorded = run_folder.read_record(config.run_dir).get("precision") if resumed else None
    if recorded and str(config.trainer.precision) == "auto":
        return Precision(recorded, "as before the interruption")
    return resolve_precision(config.trainer.precision, device, model.modules.transformer.dim)


def _optimizer_factory(settings: Mapping[str, Any]) -> partial[Optimizer]:
    """Parameter groups to an optimizer; arguments that its class does not take are refused here already."""
    arguments = {key: value for key, value in settings.items() if key != "weight_decay"}
    factory = _instantiate({"optimizer": {**arguments, "_partial_": True}})[0]
    known = list(inspect.signature(factory.func).parameters)
    unknown = [unknown_key(f"optimizer.{key}", known) for key in factory.keywords if key not in known]
    if unknown:
        raise UserError("\n".join(unknown))
    return factory


def _without_fused(factory: partial[Optimizer]) -> partial[Optimizer]:
    """A fused step unscales fp16 gradients by itself, after they were clipped: not with a loss scale."""
    return partial(factory, fused=False) if factory.keywords.get("fused") else factory


def _instantiate(nodes: Mapping[str, Mapping[str, Any]], group: str = "") -> list[Any]:
    built = []
    for name, node in nodes.items():
        try:
            built.append(instantiate({**node, "_convert_": "all"}))
        except UserError:
            raise
        except Exception as error:
            cause = error.__cause__ or error
            if isinstance(cause, UserError):
                raise cause from error
            reason = " ".join(str(cause).split())
            raise UserError(f"{group}{name}: {node['_target_']} cannot be made: {reason}") from error
    return built


def _checkpoints(config: RunConfig, model_config: ModelConfig, data: TaskData) -> Checkpoints:
    return Checkpoints(
        folder=config.run_dir / CHECKPOINTS,
        period=Period(
            config.trainer.save_every, config.trainer.val_every, config.trainer.keep, config.trainer.keep_every_hours
        ),
        writer=CheckpointWriter(in_background=config.trainer.async_save),
        write_bundle=partial(_write_run_bundle, config.run_dir, model_config, data),
    )


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


def _bad_steps(config: RunConfig, resumed_from: Path | None) -> BadSteps:
    own = config.trainer
    periods = (own.log_every, own.val_every, own.save_every)
    return BadSteps(config.run_dir, own.on_bad_step, own.max_bad_steps, resumed_from, periods)


def _write_run_bundle(
    run: Path, model_config: ModelConfig, data: TaskData, weights: dict[str, Tensor], facts: dict[str, Any]
) -> None:
    facts = {**facts, "data_fingerprint": data.datamodule.fingerprint, "tokens_per_byte": data.tokens_per_byte}
    write_bundle(run / RUN_BUNDLE, model_config, weights, data.tokenizer, facts)


def _loggers(config: RunConfig, resumed_step: int | None) -> dict[str, Logger]:
    """By name: the CSV table and those of the config, told where a resumed run goes on."""
    ids = run_folder.read_record(config.run_dir).get("logger_ids", {}) if resumed_step is not None else {}
    nodes = {}
    for name, node in config.logger.items():
        told = {"resumed_step": resumed_step, "resumed_id": ids.get(name)}
        nodes[name] = {key: told.get(key, value) for key, value in node.items()}
    csv_logger = CsvLogger(config.run_dir / run_folder.METRICS_FILE, keep_until=resumed_step)
    others = zip(nodes, _instantiate(nodes, "logger."), strict=True)
    return {"csv": csv_logger, **{name: guarded(logger, name) for name, logger in others}}


def _wanted(config: RunConfig, callbacks: list[Any]) -> list[Any]:
    """Without progress bars if ``trainer.enable_progress_bar`` is false: Lightning would refuse them."""
    if config.trainer.lightning.get("enable_progress_bar", True):
        return callbacks
    return [callback for callback in callbacks if not _is_progress_bar(callback)]


def _is_progress_bar(callback: pl.Callback) -> bool:
    return isinstance(callback, pl.callbacks.ProgressBar)


# ---- run folder ----


def _open_run_folder(
    config: RunConfig,
    composed: Mapping[str, Any],
    overrides: list[str],
    data: TaskData,
    precision: Precision,
    loggers: Mapping[str, Logger],
    session: Mapping[str, Any],
) -> None:
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return
    config.run_dir.mkdir(parents=True, exist_ok=True)
    remove_partials(config.run_dir, RUN_BUNDLE)
    OmegaConf.save(OmegaConf.create(masked(composed)), config.run_dir / run_folder.CONFIG_FILE)
    if data.keep is not None:
        data.keep(config.run_dir)
    earlier = run_folder.read_record(config.run_dir).get("sessions", [])
    overrides = [masked_argument(override) for override in overrides]
    run_folder.write_json(
        config.run_dir / run_folder.RECORD_FILE,
        {
            "overrides": overrides,
            "precision": precision.name,
            "data_fingerprint": data.datamodule.fingerprint,
            **({"data": dict(data.report)} if data.report else {}),
            "logger_ids": {name: str(logger.version) for name, logger in loggers.items()},
            "sessions": [*earlier, session],
            SEAL: seal(config.run_dir, overrides, session["command"]),
        },
    )


def _keep_start(config: RunConfig, resumed: bool) -> None:
    """Write the shape and the tokenizer of the weights, and those themselves where checkpoints leave them out: they may
    be gone when the run is resumed."""
    place = config.run_dir / START_BUNDLE
    if config.start is None or os.environ.get("LOCAL_RANK", "0") != "0" or (resumed and place.is_dir()):
        return
    weights = config.start.weights() if config.adapter is not None else {}
    write_bundle(place, config.start.config, weights, config.start.tokenizer, config.start.facts)


def _how_to_go_on(run: Path) -> str:
    last = newest_whole(run)
    if last is None:
        return "that was before the first checkpoint (trainer.save_every), so the run begins anew"
    return f"go on from step {Resumed(last).step}: slm-train resume={run}"
