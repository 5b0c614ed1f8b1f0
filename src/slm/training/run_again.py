"""What a run's folder gives again: its configuration, its data, and the model of any of its checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from slm.errors import UserError
from slm.models.config import ModelConfig
from slm.models.modules.lora import merged_state
from slm.tokenizers.base import Tokenizer
from slm.training.first_model import start_model
from slm.training.lit_module import LanguageModelModule
from slm.training.parts import optimizer_factory
from slm.training.run.averaged_weights import averaged_weights
from slm.training.run.checkpoint_files import CHECKPOINTS
from slm.training.run.checkpoint_io import model_state, read_checkpoint
from slm.training.run.folder import CONFIG_FILE, RECORD_FILE, read_config, read_record, template_time
from slm.training.run.recorded_code import refuse_unknown_code
from slm.training.run.resume import newest_whole
from slm.training.run.words_reached import WORDS
from slm.training.run_config import START_BUNDLE, RunConfig, run_config
from slm.training.tasks.task import TaskData
from slm.weights.bundle import open_bundle
from slm.weights.fine_tuning import Lora
from slm.weights.open_model import Source, find_bundle
from slm.weights.own_sampling import SAMPLING
from slm.weights.pretrained import PUBLISHED_DTYPE, Pretrained
from slm.weights.tensor_source import tensors_in_memory


def composed_of(run: Path, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The composed configuration of the run in folder `run`, of plain types, as of a run that is not resumed.

    `changes` are dotted keys with values in place of the run's. `UserError`: its ``config.yaml`` is damaged, or none.
    """
    file = run / CONFIG_FILE
    if not file.is_file():
        raise UserError(f"run: '{run}' is no run folder ({CONFIG_FILE} is missing)")
    composed: Any = read_config(run)
    try:
        for key, value in {"resume": None, "stop_after": None, **changes}.items():
            *groups, name = key.split(".")
            reduce(getitem, groups, composed)[name] = value
    except (TypeError, KeyError) as error:
        raise UserError(f"{file} is damaged ({' '.join(str(error).split())[:200]}); restore it from a copy") from None
    if composed.get("adapter") and (run / START_BUNDLE).is_dir():  # the weights; where they came from may be gone
        composed["model"]["weights"] = str(run / START_BUNDLE)
    return composed


@dataclass(frozen=True)
class RunData:
    """The training data of a run, as the run had it, in its order."""

    data: TaskData

    @classmethod
    def of(cls, run: Path) -> RunData:
        """What the run in folder `run` was trained on; `UserError`: it is no run folder, or the data is not there any
        more, or has changed."""
        # of a run from weights that may be gone, their tokenizer is all that is needed
        resumable = (run / START_BUNDLE).is_dir() and newest_whole(run) is not None
        changes = {"run_dir": str(run), **({"resume": str(run)} if resumable else {})}
        return cls(unchanged_data(run, config_again(run, composed_of(run, changes))))

    def text(self, window: int) -> list[str]:
        """What a training window, one of ``samples`` in ``bad_steps.jsonl``, holds as text: one, or of a pair of
        answers both, the chosen one first. `UserError` if there is no such window."""
        _, batch = self.data.datamodule.sample(window)
        return [self._text(*rows) for rows in zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True)]

    def _text(self, ids: list[int], labels: list[int]) -> str:
        """All that is read, and the last label, which is read by nobody; what stands behind it is padding."""
        end = max((place + 1 for place, label in enumerate(labels) if label >= 0), default=0)
        return self.data.tokenizer.decode([*ids[:end], labels[end - 1]] if end else ids)


def config_again(run: Path, composed: Mapping[str, Any]) -> RunConfig:
    """What `composed_of` gave, typed, with the time that the run's chat template wrote."""
    config = run_config(composed)
    return replace(config, template_time=template_time(run) or config.template_time)


def unchanged_data(run: Path, config: RunConfig) -> TaskData:
    """What `config` trains on; raises `UserError` unless it is what the run in folder `run` was trained on."""
    recorded = read_record(run).get("data_fingerprint")
    if recorded is None:
        raise UserError(f"run: '{run}' does not say what data it had ({RECORD_FILE} is missing)")
    data = config.task.data(config.task_inputs())
    if data.datamodule.fingerprint != recorded:
        corpus = config.data.corpus
        place = f" data.path={corpus.settings['path']}" if "path" in corpus.settings else ""
        raise UserError(
            f"data: data.kind={corpus.kind}{place} with this tokenizer is not what the run was trained on (fingerprint "
            f"{recorded[:12]} then, {data.datamodule.fingerprint[:12]} now); restore the files as they were"
        )
    return data


# ---- the model of a checkpoint ----


def checkpoint_source(run: Path, name: str, plugins: Sequence[str] = ()) -> Source:
    """The model of checkpoint `name` of the run in folder `run`: ``last``, ``step_00000250``, …; `plugins` are modules
    whose code the run may run, beside slm's and torch's. `UserError`: there is no such run, or checkpoint."""
    bundle, file = find_bundle(run), checkpoint_file(run, name)
    return Source("slm", bundle, opened=lambda: _open(run, bundle, file, plugins))


def checkpoint_file(run: Path, name: str) -> Path:
    """Of that name in the run's folder; `UserError` naming those that there are."""
    file = run / CHECKPOINTS / f"{name.removesuffix('.ckpt')}.ckpt"
    if not file.is_file():
        there = ", ".join(sorted(other.stem for other in file.parent.glob("*.ckpt"))) or "none"
        raise UserError(f"checkpoint: the run '{run}' has no '{name}'; there are: {there}")
    return file


def _open(run: Path, bundle: Path, file: Path, plugins: Sequence[str]) -> Pretrained:
    opened, content = _opened(run, bundle, file, plugins)
    with _trained(run, opened, content) as (_, model):
        weights = {name: tensor.detach().clone() for name, tensor in merged_state(model).items()}
    facts = {name: value for name, value in opened.facts.items() if name in (SAMPLING, PUBLISHED_DTYPE)}
    facts |= {"step": content["global_step"], "checkpoint": file.name}
    facts |= {name: content[name] for name in (WORDS,) if name in content}
    return replace(opened, tensors=tensors_in_memory(weights, str(file)), facts=facts)


def _opened(run: Path, bundle: Path, file: Path, plugins: Sequence[str]) -> tuple[Pretrained, dict[str, Any]]:
    """The run's bundle and the content of its checkpoint `file`."""
    refuse_unknown_code(run, plugins, left_out=("callbacks", "logger"))
    opened = open_bundle(bundle)
    try:
        return opened, read_checkpoint(file)
    except UserError as error:
        raise UserError(str(error).replace("resume: ", "checkpoint: ", 1)) from None


@contextmanager
def _trained(run: Path, bundle: Pretrained, content: Mapping[str, Any]) -> Iterator[tuple[RunConfig, nn.Module]]:
    """The run's configuration and its model with a checkpoint's weights, as the optimizer gives them."""
    changes = {"run_dir": str(run), "resume": str(run), "callbacks": {}, "logger": {}}
    config = run_config(composed_of(run, changes))
    model = start_model(config, bundle.config, bundle.tokenizer, resumed=True)
    model.load_state_dict(model_state(content), strict=config.adapter is None)
    make_optimizer = optimizer_factory(config.optimizer, lora=config.adapter is not None)
    decay = float(config.optimizer.get("weight_decay", 0.0))
    optimizer = LanguageModelModule(model, make_optimizer, decay).optimizer
    if hasattr(optimizer, "eval"):
        optimizer.load_state_dict(content["optimizer_states"][0])
    with torch.no_grad(), averaged_weights([optimizer]):
        yield config, model


# ---- what LoRA trained ----


@dataclass(frozen=True)
class Adapter:
    """Of a run with ``adapter=lora``, beside the weights that it began with."""

    lora: Lora
    config: ModelConfig
    state: dict[str, Tensor]  # ``lora_a`` and ``lora_b`` of each layer among it
    tokenizer: Tokenizer
    base: str  # the name or folder of those weights


def adapter_of(run: Path, name: str, plugins: Sequence[str] = ()) -> Adapter:
    """That of checkpoint `name` of the run in folder `run`; arguments as of `checkpoint_source`. `UserError` too if the
    run trained no adapter."""
    bundle, file = find_bundle(run), checkpoint_file(run, name)
    opened, content = _opened(run, bundle, file, plugins)
    with _trained(run, opened, content) as (config, model):
        state = {key: tensor.detach().clone() for key, tensor in model.state_dict().items() if ".lora_" in key}
    if config.adapter is None or config.start is None:
        raise UserError(f"to=peft: the run '{run}' trained all weights, no adapter (adapter=lora); take to=hf")
    base = config.start.facts.get("source") or read_config(run)["model"]["weights"]
    return Adapter(config.adapter, opened.config, state, opened.tokenizer, str(base))
