"""The model of a run's checkpoint, by name: that of its last step, say, where its best one is another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slm.errors import UserError
from slm.models.modules.lora import merged_state
from slm.training.first_model import start_model
from slm.training.lit_module import LanguageModelModule
from slm.training.parts import optimizer_factory
from slm.training.run.averaged_weights import averaged_weights
from slm.training.run.checkpoint_files import CHECKPOINTS
from slm.training.run.checkpoint_io import read_checkpoint
from slm.training.run.recorded_code import refuse_unknown_code
from slm.training.run_again import composed_of
from slm.training.start import run_config
from slm.weights.bundle import open_bundle
from slm.weights.open_model import Source, find_bundle
from slm.weights.own_sampling import SAMPLING
from slm.weights.pretrained import PUBLISHED_DTYPE, Pretrained
from slm.weights.tensor_source import tensors_in_memory

_PREFIX = "model."  # of the LightningModule's attribute


def checkpoint_source(run: Path, name: str, plugins: Sequence[str] = ()) -> Source:
    """The model of checkpoint `name` of the run in folder `run`: ``last``, ``step_00000250``, ….

    Args:
        run, name: as said.
        plugins: modules whose code the run may run, beside slm's and torch's.

    Raises:
        UserError: there is no such run, or checkpoint.
    """
    bundle = find_bundle(run)
    file = run / CHECKPOINTS / f"{name.removesuffix('.ckpt')}.ckpt"
    if not file.is_file():
        there = ", ".join(sorted(other.stem for other in file.parent.glob("*.ckpt"))) or "none"
        raise UserError(f"checkpoint: the run '{run}' has no '{name}'; there are: {there}")
    return Source("slm", bundle, opened=lambda: _open(run, bundle, file, plugins))


def _open(run: Path, bundle: Path, file: Path, plugins: Sequence[str]) -> Pretrained:
    refuse_unknown_code(run, plugins, left_out=("callbacks", "logger"))
    opened = open_bundle(bundle)
    try:
        content = read_checkpoint(file)
    except UserError as error:
        raise UserError(str(error).replace("resume: ", "checkpoint: ", 1)) from None
    tensors = tensors_in_memory(_weights(run, opened, content), str(file))
    facts = {name: value for name, value in opened.facts.items() if name in (SAMPLING, PUBLISHED_DTYPE)}
    return replace(opened, tensors=tensors, facts={**facts, "step": content["global_step"], "checkpoint": file.name})


def _weights(run: Path, bundle: Pretrained, content: Mapping[str, Any]) -> dict[str, Tensor]:
    """A plain model's, in the names of a bundle: what training has beside them is merged, or undone."""
    changes = {"run_dir": str(run), "resume": str(run), "callbacks": {}, "logger": {}}
    config = run_config(composed_of(run, changes))
    model = start_model(config, bundle.config, bundle.tokenizer, resumed=True)
    trained = {name.removeprefix(_PREFIX): tensor for name, tensor in content["state_dict"].items()}
    model.load_state_dict(trained, strict=config.adapter is None)
    make_optimizer = optimizer_factory(config.optimizer, lora=config.adapter is not None)
    decay = float(config.optimizer.get("weight_decay", 0.0))
    optimizer = LanguageModelModule(model, make_optimizer, decay).optimizer
    if hasattr(optimizer, "eval"):
        optimizer.load_state_dict(content["optimizer_states"][0])
    with torch.no_grad(), averaged_weights([optimizer]):
        return {name: tensor.detach().clone() for name, tensor in merged_state(model).items()}
