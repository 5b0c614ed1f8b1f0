"""The model bundle: a folder that holds a model whole, for every later command to take.

model.safetensors      the weights
config.json            the model's shape, and what made it
slm_tokenizer.json     the tokenizer
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from slm.errors import UserError
from slm.models.config import ModelConfig
from slm.models.modules.build import build_model
from slm.tokenizers.base import Tokenizer, load_tokenizer

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
FORMAT = 1


@dataclass(frozen=True)
class Bundle:
    """A model that was read back, in eval mode, with its tokenizer.

    Attributes:
        facts: plain types that say what produced it (training step, loss, versions, …).
    """

    model: nn.Module
    tokenizer: Tokenizer
    config: ModelConfig
    facts: dict[str, Any]


def write_bundle(
    folder: Path, config: ModelConfig, weights: Mapping[str, Tensor], tokenizer: Tokenizer, facts: Mapping[str, Any]
) -> None:
    """Write a bundle beside `folder` and rename it into place; an older one is replaced whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, partial / WEIGHTS_FILE)
        content = {"format": FORMAT, "model": config.to_dict(), "facts": dict(facts)}
        (partial / CONFIG_FILE).write_text(json.dumps(content, indent=1), encoding="utf-8")
        tokenizer.save(partial)
        partial.chmod(0o755)
        if folder.exists():
            retired = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.old."))
            os.replace(folder, retired / folder.name)
            os.replace(partial, folder)
            shutil.rmtree(retired)
        else:
            os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read_bundle(folder: Path, device: torch.device | str = "cpu") -> Bundle:
    """Read a bundle: the model is laid out without drawing weights, then takes the saved ones.

    Raises:
        UserError: a file is missing or damaged, or the tensors are not those of the config.
    """
    config, facts = _read_config(folder / CONFIG_FILE)
    tokenizer = load_tokenizer(folder)
    with torch.device("meta"):
        model = build_model(config)
    weights = _read_weights(folder / WEIGHTS_FILE, device)
    _check_weights(folder / WEIGHTS_FILE, model.state_dict(), weights)
    _fill_buffers(model, device)
    model.load_state_dict(weights, assign=True)
    return Bundle(model.eval(), tokenizer, config, facts)


def _read_config(file: Path) -> tuple[ModelConfig, dict[str, Any]]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        shape, facts, version = content["model"], content["facts"], content["format"]
    except FileNotFoundError:
        raise UserError(f"'{file.parent}' is no model bundle: {file.name} is missing") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is damaged or not a bundle's ({error})") from None
    if version != FORMAT:
        raise UserError(
            f"{file} has bundle format {version}, expected {FORMAT}; read it with the version that wrote it"
        )
    return ModelConfig.from_dict(shape, where=f"{file}: model"), facts


def _read_weights(file: Path, device: torch.device | str) -> dict[str, Tensor]:
    if not file.is_file():
        raise UserError(f"'{file.parent}' is no model bundle: {file.name} is missing")
    try:
        return load_file(file, device=str(device))
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is damaged ({error})") from None


def _check_weights(file: Path, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    problems = [f"'{name}' is missing" for name in expected.keys() - found.keys()]
    problems += [f"'{name}' is not the model's" for name in found.keys() - expected.keys()]
    problems += [
        f"'{name}' has shape {tuple(found[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in expected.keys() & found.keys()
        if found[name].shape != expected[name].shape
    ]
    if problems:
        raise UserError(f"{file} does not fit its {CONFIG_FILE}: " + "; ".join(sorted(problems)))


def _fill_buffers(model: nn.Module, device: torch.device | str) -> None:
    """Compute what is never saved because it follows from the config (position tables).

    `init_weights` of a module that holds such a buffer does it; weights, still without memory here, it leaves be.
    """
    for module in model.modules():
        laid_out = {name: buffer for name, buffer in module._buffers.items() if buffer is not None and buffer.is_meta}
        for name, buffer in laid_out.items():
            module._buffers[name] = torch.empty_like(buffer, device=device)
        if laid_out:
            with torch.no_grad():
                module.init_weights()  # type: ignore[operator]
