"""What a run is built of once its start is known: data, model, LightningModule, Trainer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger
from torch import nn
from torch.optim import Optimizer

from slm.errors import UserError
from slm.models.config import ModelConfig
from slm.notices import notice
from slm.training.compiled import Compiled
from slm.training.first_model import fit_vocabulary, recompute_blocks, start_model
from slm.training.lightning_seams import leave_signals_alone, log_under_own_steps
from slm.training.lit_module import LanguageModelModule
from slm.training.optim.parameter_groups import say_unread
from slm.training.optim.schedules import Schedule
from slm.training.parts import checkpoints_callback, make_trainer, settled_factory
from slm.training.plan import (
    check_validation,
    describe_plan,
    describe_words,
    resolve_precision,
    resolved,
    settings_for_loggers,
)
from slm.training.process import FrozenGarbage
from slm.training.run import folder as run_folder
from slm.training.run.averaged_weights import AveragedWeights
from slm.training.run.branching import begun_anew, carry_over
from slm.training.run.checkpoints import Checkpoints
from slm.training.run.heard_signals import StopSignals
from slm.training.run.random_state import RandomState
from slm.training.run.resume_checks import Resumed
from slm.training.run.stops import BrokenOff, PlannedStop, StopOnSignal
from slm.training.run_config import RunConfig
from slm.training.tasks.task import TaskData
from slm.training.watch.bad_steps import BadSteps
from slm.training.watch.train_metrics import TrainMetrics
from slm.weights.export.destinations import destinations


@dataclass(frozen=True)
class Begun:
    """What is known without the data."""

    config: RunConfig  # with batches for these devices; later with what else follows from the data
    resumed: Resumed | None
    record: Mapping[str, Any]  # ``run.json``, {} of a new run
    make_optimizer: partial[Optimizer]
    callbacks: list[pl.Callback]  # of the configuration
    loggers: Mapping[str, Logger]
    device: str  # its kind
    n_devices: int  # over all nodes
    threads_wait: str  # how those of the kernels wait for each other
    at: float  # when, in s of the performance counter
    schedule: Schedule | None = None  # once the steps are known
    left: Resumed | None = None  # the newest checkpoint, where an earlier one is gone on from

    @property
    def checkpoint(self) -> Path | None:
        return self.resumed.file if self.resumed else None


@dataclass(frozen=True)
class Built:
    """What is trained, ready to."""

    begun: Begun
    data: TaskData
    precision: str  # Lightning's name of it
    resolved: dict[str, Any]  # what settings came to that the configuration leaves open
    anew: list[str]  # what does not go on in a run that begins from another's checkpoint
    module: LanguageModelModule
    trainer: pl.Trainer
    checkpoints: Checkpoints


def is_over(config: RunConfig, resumed: Resumed) -> bool:
    """A run that is to go on wherever it is, and is at its end."""
    return config.resume == "auto" and not resumed.begins_new and resumed.step >= config.last_step


def read_data(begun: Begun) -> TaskData:
    """What the task makes of the data; raises `UserError` if that cannot be trained on."""
    run = run_folder.run_of_checkpoint(begun.checkpoint) if begun.checkpoint else None
    data = begun.config.task.data(begun.config.task_inputs(run))
    notice(data.said)
    check_validation(data.datamodule, begun.config.trainer.lightning.get("limit_val_batches"), begun.n_devices)
    return data


def build(
    begun: Begun,
    data: TaskData,
    composed: Mapping[str, Any],
    broken_off: BrokenOff,
    more_callbacks: Sequence[pl.Callback],
    signals: StopSignals,
) -> Built:
    """Model, module and Trainer, each checked against what is gone on from; raises `UserError`."""
    config, resumed = begun.config, begun.resumed
    model_config = fit_vocabulary(config, data.tokenizer, resumed=resumed is not None)
    module, precision = _module(begun, data, model_config, composed)
    adapts = config.adapter is not None and not config.adapter.also_train
    notice(destinations(model_config, data.tokenizer, adapts))
    for callback in (*begun.callbacks, *more_callbacks):
        if hasattr(callback, "take_data"):
            callback.take_data(data.datamodule)
        if hasattr(callback, "check_before_training"):  # so that none fails an hour later
            callback.check_before_training(module)
    if config.trainer.recompute:
        recompute_blocks(module.model)
    say_unread(module.optimizer, config.optimizer)
    assert begun.schedule is not None
    checkpoints = checkpoints_callback(config, model_config, data, begun.schedule, _branches(begun))
    anew = _check_resumed(begun, data, module, checkpoints) if resumed else []
    numbers = resolved(config, composed, precision, model_config, begun.schedule)
    first = [
        broken_off,
        BadSteps(config.trainer, config.run_dir, begun.checkpoint, checkpoints),
        TrainMetrics(config.trainer.log_every, settings_for_loggers(composed, numbers, model_config)),
    ]
    others = [*data.callbacks, *begun.callbacks, *more_callbacks]
    trainer = _trainer(begun, precision, [*first, *others], checkpoints, signals)
    return Built(begun, data, precision, numbers, anew, module, trainer, checkpoints)


def _branches(begun: Begun) -> bool:
    """Whether training goes on from another run's checkpoint, or from an earlier one than its newest."""
    resumed, config = begun.resumed, begun.config
    if resumed is None:
        return False
    is_named = config.resume is not None and Path(config.resume).expanduser().is_file()
    return is_named or begun.left is not None or resumed.run.resolve() != config.run_dir.resolve()


def _check_resumed(begun: Begun, data: TaskData, module: LanguageModelModule, checkpoints: Checkpoints) -> list[str]:
    """Raise `UserError` unless what is gone on from fits; what of another run's checkpoint begins anew."""
    config, resumed = begun.config, begun.resumed
    assert resumed is not None
    if not is_over(config, resumed):
        resumed.check_ends_after(config.last_step)
    if not resumed.begins_new:
        resumed.check_fits(data.datamodule, module.model, module.optimizer)
        return []
    if data.prepare is not None and not resumed.is_of_data(data.datamodule):
        raise UserError(
            "from_step: what these answers are compared with was asked of the pairs that the other run had; leave its "
            f"data as it was, or begin with its weights (model.weights={resumed.run})"
        )
    same_class = run_folder.recorded_optimizer(resumed.run) in (None, config.optimizer["_target_"])
    anew = begun_anew(resumed, data.datamodule, module.model, module.optimizer, same_class)
    change = carry_over(anew, data.datamodule, module.optimizer, len(module.figure_names))
    checkpoints.writer.change_as_read(resumed.file, change)
    return anew


def _module(
    begun: Begun, data: TaskData, model_config: ModelConfig, composed: Mapping[str, Any]
) -> tuple[LanguageModelModule, str]:
    config, resumed, schedule = begun.config, begun.resumed, begun.schedule
    assert schedule is not None
    pl.seed_everything(config.seed, verbose=False)
    model = start_model(config, model_config, data.tokenizer, resumed=resumed is not None)
    notice(f"model {model_config.name}\n{summarize(model)}")
    if not any(p.requires_grad for p in model.parameters()):
        raise UserError("every module is frozen (freeze: true): there is nothing to train; unfreeze one")
    measured = begun.record.get("precision") if resumed else None
    width = model_config.modules.transformer.dim
    precision, reason = resolve_precision(config.trainer.precision, begun.device, width, measured)
    notice(f"precision {precision} ({reason})")
    notice(describe_plan(config, composed, data.datamodule, begun.n_devices, schedule))
    if config.trainer.word_points is not None:
        words = data.datamodule.count_words(data.tokenizer)
        notice(describe_words(config, words, begun.n_devices))
    if data.prepare is not None:
        data.prepare(model, begun.device, precision)
    module = (data.make_module or LanguageModelModule)(
        model,
        make_optimizer=settled_factory(begun.make_optimizer, config.optimizer, precision),
        weight_decay=float(config.optimizer.get("weight_decay", 0.0)),
        lr_factor=schedule.factor,
        grad_clip=config.trainer.grad_clip,
        val_shares=data.val_shares,
        tokenizer=data.tokenizer,
        generation=replace(config.generation, chat=data.chat),
    )
    return module, precision


def _trainer(
    begun: Begun, precision: str, first: Sequence[pl.Callback], checkpoints: Checkpoints, signals: StopSignals
) -> pl.Trainer:
    """Lightning's, whose periods count micro-batches."""
    config, own = begun.config, begun.config.trainer
    accumulate = own.accumulation(begun.n_devices)
    callbacks = [  # in the order in which they are called: who leaves out a step is first, who saves and stops are last
        *first,
        FrozenGarbage(),
        *([Compiled()] if own.compile else []),
        RandomState(),
        AveragedWeights(),
        PlannedStop(config.last_step, own.val_every, own.max_time),
        checkpoints,
        StopOnSignal(signals, own.val_every, checkpoints.save_now),
    ]
    settings = {
        **own.lightning,
        "max_steps": own.steps,
        "max_epochs": -1,
        "accumulate_grad_batches": accumulate,
        "val_check_interval": own.val_every * accumulate,
        "log_every_n_steps": own.log_every,
        "check_val_every_n_epoch": None,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
        "enable_model_summary": False,
        "enable_progress_bar": any(isinstance(callback, pl.callbacks.ProgressBar) for callback in callbacks),
        "default_root_dir": config.run_dir,
        "precision": precision,
        "plugins": [checkpoints.writer],
        "callbacks": callbacks,
        "logger": list(begun.loggers.values()),
    }
    trainer = make_trainer(**settings)
    leave_signals_alone(trainer)
    log_under_own_steps(trainer)
    return trainer


def summarize(model: nn.Module) -> str:
    """One line a top module with its parameters and whether it is frozen, then the total; shared ones count once."""
    seen: set[int] = set()
    rows: list[tuple[str, int, str]] = []
    for name, module in model.named_children():
        parameters = [p for p in module.parameters() if id(p) not in seen]
        seen.update(id(p) for p in parameters)
        if parameters:
            frozen = "  frozen" if not any(p.requires_grad for p in parameters) else ""
            rows.append((name, sum(p.numel() for p in parameters), frozen))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(count for _, count, _ in rows)
    rows.append(("total", total, "" if trained == total else f"  ({trained:,} trained)"))
    return "\n".join(f"  {name:<20}{count:>15,}{note}" for name, count, note in rows)
