"""The parts that a run is made of, from its configuration: model, optimizer, loggers, callbacks, Trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.utils import get_object, instantiate
from pytorch_lightning.loggers import Logger
from torch import Tensor, nn
from torch.optim import Optimizer

from slm.data.batches.datamodule import WindowDataModule
from slm.data.batches.order import EvalBatches
from slm.errors import UserError
from slm.files.reading import read_json_object
from slm.models.config import ModelConfig
from slm.models.modules.build import build_model
from slm.models.modules.lora import add_lora
from slm.notices import notice
from slm.tokenizers.base import Tokenizer
from slm.tokenizers.load import is_missing
from slm.training.lit_module import LanguageModelModule
from slm.training.optim.config import problems_of
from slm.training.optim.optimizers import parameter_groups
from slm.training.precision import Precision, resolve_precision
from slm.training.run import folder as run_folder
from slm.training.run.checkpoint_files import CHECKPOINTS
from slm.training.run.checkpoint_io import CheckpointWriter
from slm.training.run.checkpoints import Checkpoints, Period
from slm.training.run_config import RunConfig
from slm.training.tasks.task import TaskData
from slm.training.watch.bad_steps import BadSteps
from slm.training.watch.csv_logger import CsvLogger
from slm.training.watch.guarded_logger import guarded
from slm.weights.adapt import TOKEN_ROWS, fine_tuned_model
from slm.weights.bundle import CONFIG_FILE as BUNDLE_CONFIG
from slm.weights.bundle import write_bundle
from slm.weights.open_model import RUN_BUNDLE
from slm.weights.own_sampling import SAMPLING
from slm.weights.pretrained import PUBLISHED_DTYPE

_SHOWN = 4


def recompute_blocks(model: nn.Module) -> None:
    """Let the transformer's blocks run again in the backward pass; raises `UserError` for a model without any."""
    transformer: Any = getattr(model, "transformer", None)
    if not hasattr(transformer, "recompute"):
        raise UserError(f"trainer.recompute: {type(model).__name__} has no transformer of slm; leave it false")
    transformer.recompute = True


def fit_vocabulary(config: RunConfig, tokenizer: Tokenizer, resumed: bool) -> ModelConfig:
    """The model's configuration with rows for every token.

    Raises:
        UserError: it has fewer; or tokens are new to the weights, and nothing says how their rows begin.
    """
    needed, given = tokenizer.vocab_size, config.model.params.vocab_size
    if given is None:
        return config.model.with_vocab_size(needed)
    new = new_tokens(config, tokenizer)
    if new and config.fine_tuning and not (config.fine_tuning.grow_vocab or (resumed and given >= needed)):
        spare = ", though they have spare rows" if given >= needed else ""
        raise UserError(
            f"{len(new)} tokens are new to the weights ({_spelt(new, tokenizer)}){spare}; model.grow_vocab=mean gives "
            "them rows that are trained, or choose what needs none (task.template=alpaca)"
        )
    if needed > given and not config.fine_tuning:
        raise UserError(
            f"model.params.vocab_size ({given}) must be at least the tokenizer's {needed}; leave it null to take it "
            "from the tokenizer"
        )
    return config.model.with_vocab_size(max(needed, given))


def new_tokens(config: RunConfig, tokenizer: Tokenizer) -> range:
    """Ids of `tokenizer` that the weights to start from were not trained on, with a row for them or without."""
    if config.start is None:
        return range(0)
    theirs = config.start.tokenizer
    return range(config.start.config.vocab_size if is_missing(theirs) else theirs.vocab_size, tokenizer.vocab_size)


def _spelt(ids: range, tokenizer: Tokenizer) -> str:
    spelling_of = {token_id: text for text, token_id in tokenizer.special_tokens.items()}
    shown = [spelling_of.get(token_id, str(token_id)) for token_id in ids[:_SHOWN]]
    return ", ".join([*shown, *(["…"] if len(ids) > _SHOWN else [])])


def start_model(config: RunConfig, model_config: ModelConfig, tokenizer: Tokenizer, resumed: bool) -> nn.Module:
    """A new model, or that of the weights to start from; what a checkpoint will give is not read first.

    Raises:
        UserError: tokens are new to the weights, and their rows would not be trained.
    """
    in_checkpoint = resumed and config.adapter is None  # else what LoRA leaves as it was is taken from the start again
    if config.start is None or config.fine_tuning is None or in_checkpoint:
        return build_model(model_config)
    new = new_tokens(config, tokenizer)
    model = fine_tuned_model(config.start, model_config, config.fine_tuning.grow_vocab, new)
    if (lora := config.adapter) is not None:
        add_lora(model, lora.rank, lora.scale, lora.dropout, lora.targets, lora.also_train)
    if new and config.fine_tuning.grow_vocab:
        _refuse_frozen_rows(model, "name it in adapter.also_train" if lora else "leave its freeze false")
    if new and config.fine_tuning.grow_vocab and not resumed:
        how = {"mean": "as the mean of the others", "normal": "drawn like the others"}[config.fine_tuning.grow_vocab]
        notice(f"{len(new)} new tokens ({_spelt(new, tokenizer)}): their rows begin {how}, and are trained")
    return model


def _refuse_frozen_rows(model: nn.Module, mend: str) -> None:
    parameters = dict(model.named_parameters())
    for name in TOKEN_ROWS:
        if name in parameters and not parameters[name].requires_grad:
            raise UserError(f"model.grow_vocab makes rows of {name.split('.')[-2]} that would never be trained; {mend}")


def check_trainable(model: nn.Module) -> None:
    """Raise `UserError` if every parameter is frozen."""
    if not any(p.requires_grad for p in model.parameters()):
        raise UserError("every module is frozen (freeze: true): there is nothing to train; unfreeze one")


def check_validation(data: WindowDataModule, limit: float | None, n_devices: int) -> None:
    """Raise `UserError` if ``limit_val_batches`` is so small a share that it leaves no batch of a part."""
    for part in data.parts("val"):
        batches = len(EvalBatches(len(part), data.batch_size, n_devices - 1, n_devices))
        if limit is not None and 0 < limit < 1 and batches * limit < 1:
            raise UserError(
                f"trainer.limit_val_batches={limit} of {batches} batches is less than one; give a number of batches, "
                f"or a share of at least {ceil(1000 / batches) / 1000 if batches else 1}"
            )


@dataclass(frozen=True)
class Devices:
    """Attributes:
    kind: "cpu", "cuda", …
    count: how many, over all nodes.
    """

    kind: str
    count: int

    @classmethod
    def of(cls, lightning: Mapping[str, Any]) -> Devices:
        """What Lightning will run on, asked of Lightning itself before the real Trainer is made."""
        keys = ("accelerator", "devices", "num_nodes", "strategy")
        probe = make_trainer(
            **{k: lightning[k] for k in keys if k in lightning},
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        return cls(probe.strategy.root_device.type, probe.world_size)


def make_trainer(**settings: Any) -> pl.Trainer:
    """Lightning's Trainer; what it refuses, as a `UserError`."""
    try:
        return pl.Trainer(**settings)
    except Exception as error:  # Lightning raises several kinds for what it cannot do
        raise UserError(f"trainer: {' '.join(str(error).split())}") from error


def precision_of(config: RunConfig, device: str, model: ModelConfig, resumed: bool) -> Precision:
    """The configured one; what ``auto`` measured before an interruption stays."""
    recorded = run_folder.read_record(config.run_dir).get("precision") if resumed else None
    if recorded and str(config.trainer.precision) == "auto":
        return Precision(recorded, "as before the interruption")
    return resolve_precision(config.trainer.precision, device, model.modules.transformer.dim)


def optimizer_factory(settings: Mapping[str, Any], lora: bool) -> partial[Optimizer]:
    """Parameter groups to an optimizer; what its class does not take is refused here already, and thin matrices
    by one that treats matrices by what they do."""
    arguments = {key: value for key, value in settings.items() if key != "weight_decay"}
    factory = instantiated({"optimizer": {**arguments, "_partial_": True}})[0]
    by_role = getattr(factory.func, "takes_roles", False)
    if lora and by_role:
        raise UserError(
            f"adapter=lora does not go with {settings['_target_']}: it orthogonalises hidden matrices, and for LoRA's "
            "thin ones there is no rule that holds; take optimizer=adamw, or leave adapter out"
        )
    _try(factory, str(settings["_target_"]), by_role)
    return factory


def _try(factory: partial[Optimizer], target: str, by_role: bool) -> None:
    """Make one, of a model of two numbers; what it refuses is a `UserError` ahead of any work."""
    tiny = nn.Linear(1, 1)
    try:
        factory(parameter_groups(tiny, weight_decay=0.1, by_role=by_role))
    except Exception as error:  # any kind that somebody else's class raises
        raise UserError(f"optimizer: {target} cannot be made: {' '.join(str(error).split())}") from error


def without_fused(factory: partial[Optimizer]) -> partial[Optimizer]:
    """A fused step unscales fp16 gradients by itself, after they were clipped: not with a loss scale."""
    return partial(factory, fused=False) if factory.keywords.get("fused") else factory


def instantiated(nodes: Mapping[str, Mapping[str, Any]], group: str = "") -> list[Any]:
    """What the nodes' ``_target_``s make; an argument that one does not take, or refuses, is a `UserError`."""
    built = []
    for name, node in nodes.items():
        try:
            if problems := problems_of(node, f"{group}{name}", get_object(node["_target_"])):
                raise UserError("\n".join(problems))
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


def checkpoints_callback(
    config: RunConfig, model_config: ModelConfig, data: TaskData, resumed_from: Path | None
) -> Checkpoints:
    """Writes checkpoints and the bundle of the best weights into the run folder."""
    is_other = resumed_from and run_folder.run_of_checkpoint(resumed_from).resolve() != config.run_dir.resolve()
    is_named = config.resume is not None and Path(config.resume).expanduser().is_file()
    return Checkpoints(
        folder=config.run_dir / CHECKPOINTS,
        period=Period(
            config.trainer.save_every, config.trainer.val_every, config.trainer.keep, config.trainer.keep_every_hours
        ),
        writer=CheckpointWriter(in_background=config.trainer.async_save),
        write_bundle=partial(_write_run_bundle, config, model_config, data),
        bundled_step=_bundled_step(config.run_dir / RUN_BUNDLE),
        branches=bool(is_other) or is_named,
    )


def _bundled_step(bundle: Path) -> int | None:
    """Of the weights that a run's bundle holds; None where there is none that can be read."""
    try:
        step = read_json_object(bundle / BUNDLE_CONFIG)["facts"]["step"]
    except (UserError, LookupError, TypeError):
        return None
    return step if isinstance(step, int) else None


def bad_steps_callback(config: RunConfig, resumed_from: Path | None) -> BadSteps:
    """Decides what becomes of steps that are not finite."""
    own = config.trainer
    periods = (own.log_every, own.val_every, own.save_every)
    return BadSteps(config.run_dir, own.on_bad_step, own.max_bad_steps, resumed_from, periods)


def _write_run_bundle(
    config: RunConfig, model_config: ModelConfig, data: TaskData, weights: dict[str, Tensor], facts: dict[str, Any]
) -> None:
    facts = {**facts, "data_fingerprint": data.datamodule.fingerprint}
    if config.start is not None:
        facts[PUBLISHED_DTYPE] = config.start.published_dtype
        facts |= {name: value for name, value in config.start.facts.items() if name == SAMPLING}
    write_bundle(config.run_dir / RUN_BUNDLE, model_config, weights, data.tokenizer, facts)


def loggers_of(config: RunConfig, resumed_step: int | None) -> dict[str, Logger]:
    """By name: the CSV table and those of the config, told where a resumed run goes on."""
    ids = run_folder.read_record(config.run_dir).get("logger_ids", {}) if resumed_step is not None else {}
    nodes = {}
    for name, node in config.logger.items():
        told = {"resumed_step": resumed_step, "resumed_id": ids.get(name)}
        nodes[name] = {key: told.get(key, value) for key, value in node.items()}
    csv_logger = CsvLogger(config.run_dir / run_folder.METRICS_FILE, keep_until=resumed_step)
    others = zip(nodes, instantiated(nodes, "logger."), strict=True)
    return {"csv": csv_logger, **{name: guarded(logger, name) for name, logger in others}}


def callbacks_of(config: RunConfig) -> list[Any]:
    """The configured ones; without progress bars if ``trainer.enable_progress_bar`` is false: Lightning would refuse
    them."""
    callbacks = instantiated(config.callbacks, "callbacks.")
    if config.trainer.lightning.get("enable_progress_bar", True):
        return callbacks
    return [callback for callback in callbacks if not is_progress_bar(callback)]


def check_callbacks(callbacks: Sequence[pl.Callback], module: LanguageModelModule) -> None:
    """Let each look at what it will work with, so that none fails an hour later.

    One that has something to look at has a method ``check_before_training(module)``, which raises `UserError`.
    """
    for callback in callbacks:
        check = getattr(callback, "check_before_training", None)
        if check is not None:
            check(module)


def is_progress_bar(callback: pl.Callback) -> bool:
    """Whether Lightning takes it for one."""
    return isinstance(callback, pl.callbacks.ProgressBar)
