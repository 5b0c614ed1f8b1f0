"""The parts that a run is made of, from its configuration: optimizer, loggers, callbacks, Trainer."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import hydra.utils
import pytorch_lightning as pl
from hydra.utils import get_object, instantiate
from pytorch_lightning.loggers import Logger
from torch import Tensor, nn
from torch.optim import Optimizer

from slm.errors import UserError, refuse
from slm.files.reading import read_json_object
from slm.models.config import ModelConfig
from slm.training.optim.config import problems_of, with_warmup_steps
from slm.training.optim.parameter_groups import parameter_groups
from slm.training.optim.schedules import Schedule
from slm.training.run import folder as run_folder
from slm.training.run.checkpoint_files import CHECKPOINTS
from slm.training.run.checkpoint_io import CheckpointWriter
from slm.training.run.checkpoints import Checkpoints
from slm.training.run_config import RunConfig
from slm.training.tasks.task import TaskData
from slm.training.watch.csv_logger import CsvLogger
from slm.training.watch.loggers import guarded
from slm.weights.bundle import CONFIG_FILE as BUNDLE_CONFIG
from slm.weights.bundle import write_bundle
from slm.weights.open_model import RUN_BUNDLE
from slm.weights.own_sampling import SAMPLING
from slm.weights.pretrained import PUBLISHED_DTYPE

# Which classes are made is the user's own setting, or was checked (`run/recorded_code.py`); Hydra 1.4 asks to say so.
_ANY_TARGET = (
    {"_execution_whitelist_": unchecked}
    if (unchecked := getattr(hydra.utils, "UNSAFE_DISABLE_EXECUTION_CHECKS", None))
    else {}
)

# ---- Lightning's Trainer ----


def devices_of(lightning: Mapping[str, Any]) -> tuple[str, int]:
    """What Lightning will run on, asked of Lightning itself before the real Trainer is made: the kind of device ("cpu",
    "cuda", …) and how many, over all nodes."""
    asked = {key: lightning[key] for key in ("accelerator", "devices", "num_nodes", "strategy") if key in lightning}
    extras = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    probe = make_trainer(**asked, **dict.fromkeys(extras, False))
    return probe.strategy.root_device.type, probe.world_size


def make_trainer(**settings: Any) -> pl.Trainer:
    """Lightning's Trainer; what it refuses, as a `UserError`."""
    try:
        return pl.Trainer(**settings)
    except Exception as error:  # Lightning raises several kinds for what it cannot do
        raise UserError(f"trainer: {' '.join(str(error).split())}") from error


# ---- the optimizer ----


def optimizer_factory(settings: Mapping[str, Any], lora: bool) -> partial[Optimizer]:
    """Parameter groups to an optimizer; what its class does not take is refused here already, and thin matrices
    by one that treats matrices by what they do. A share of all steps stands for one step, until they are known."""
    settings = with_warmup_steps(settings, 1)
    arguments = {key: value for key, value in settings.items() if key != "weight_decay"}
    factory = instantiated({"optimizer": {**arguments, "_partial_": True}})[0]
    by_role = getattr(factory.func, "takes_roles", False)
    if lora and by_role:
        raise UserError(
            f"adapter=lora does not go with {settings['_target_']}: it orthogonalises hidden matrices, and for LoRA's "
            "thin ones there is no rule that holds; take optimizer=adamw, or leave adapter out"
        )
    try:
        factory(parameter_groups(nn.Linear(1, 1), weight_decay=0.1, by_role=by_role))  # ahead of any work
    except Exception as error:  # any kind that somebody else's class raises
        reason = " ".join(str(error).split())
        raise UserError(f"optimizer: {settings['_target_']} cannot be made: {reason}") from error
    return factory


def settled_factory(factory: partial[Optimizer], settings: Mapping[str, Any], precision: str) -> partial[Optimizer]:
    """The same once the steps of a warmup and the precision are known: a fused step unscales fp16 gradients by itself,
    after they were clipped, which must not be."""
    known = {} if settings.get("warmup_steps") is None else {"warmup_steps": settings["warmup_steps"]}
    if precision == "16-mixed" and factory.keywords.get("fused"):
        known["fused"] = False
    return partial(factory.func, *factory.args, **{**factory.keywords, **known})


def instantiated(nodes: Mapping[str, Mapping[str, Any]], group: str = "") -> list[Any]:
    """What the nodes' ``_target_``s make; an argument that one does not take, or refuses, is a `UserError`."""
    built = []
    for name, node in nodes.items():
        try:
            refuse(problems_of(node, f"{group}{name}", get_object(node["_target_"])))
            built.append(instantiate({**node, "_convert_": "all"}, **_ANY_TARGET))
        except UserError:
            raise
        except Exception as error:
            cause = error.__cause__ or error
            if isinstance(cause, UserError):
                raise cause from error
            reason = " ".join(str(cause).split())
            raise UserError(f"{group}{name}: {node['_target_']} cannot be made: {reason}") from error
    return built


# ---- callbacks and loggers ----


def callbacks_of(config: RunConfig) -> list[Any]:
    """The configured ones; without progress bars if ``trainer.enable_progress_bar`` is false: Lightning would refuse
    them."""
    callbacks = instantiated(config.callbacks, "callbacks.")
    with_bars = config.trainer.lightning.get("enable_progress_bar", True)
    return [callback for callback in callbacks if with_bars or not isinstance(callback, pl.callbacks.ProgressBar)]


def loggers_of(config: RunConfig, resumed_step: int | None, record: Mapping[str, Any]) -> dict[str, Logger]:
    """By name: the CSV table and those of the config, told where a resumed run, of this `record`, goes on."""
    ids = record.get("logger_ids", {}) if resumed_step is not None else {}
    nodes = {}
    for name, node in config.logger.items():
        told = {"resumed_step": resumed_step, "resumed_id": ids.get(name)}
        nodes[name] = {key: told.get(key, value) for key, value in node.items()}
    csv_logger = CsvLogger(config.run_dir / run_folder.METRICS_FILE, keep_until=resumed_step)
    others = zip(nodes, instantiated(nodes, "logger."), strict=True)
    return {"csv": csv_logger, **{name: guarded(logger, name) for name, logger in others}}


def checkpoints_callback(
    config: RunConfig, model_config: ModelConfig, data: TaskData, schedule: Schedule, branches: bool
) -> Checkpoints:
    """Writes checkpoints and the bundle of the best weights into the run folder."""
    return Checkpoints(
        folder=config.run_dir / CHECKPOINTS,
        settings=config.trainer,
        schedule=schedule,
        writer=CheckpointWriter(in_background=config.trainer.async_save),
        write_bundle=partial(_write_run_bundle, config, model_config, data),
        bundled_step=_bundled_step(config.run_dir / RUN_BUNDLE),
        branches=branches,
    )


def _bundled_step(bundle: Path) -> int | None:
    """Of the weights that a run's bundle holds; None where there is none that can be read."""
    try:
        step = read_json_object(bundle / BUNDLE_CONFIG)["facts"]["step"]
    except (UserError, LookupError, TypeError):
        return None
    return step if isinstance(step, int) else None


def _write_run_bundle(
    config: RunConfig, model_config: ModelConfig, data: TaskData, weights: dict[str, Tensor], facts: dict[str, Any]
) -> None:
    facts = {**facts, "data_fingerprint": data.datamodule.fingerprint}
    if config.start is not None:
        facts[PUBLISHED_DTYPE] = config.start.published_dtype
        facts |= {name: value for name, value in config.start.facts.items() if name == SAMPLING}
    write_bundle(config.run_dir / RUN_BUNDLE, model_config, weights, data.tokenizer, facts)
