"""The model bundle: a folder that holds a model whole, for every later command to take."""

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from slm.errors import UserError
from slm.files.reading import read_json_object
from slm.files.writing import flush_file, flush_folder, new_folder
from slm.models.config import ModelConfig
from slm.models.inference.prepared import MODES
from slm.models.inference.quantized import BLOCK
from slm.tokenizers.base import Tokenizer
from slm.tokenizers.load import is_missing, load_tokenizer, missing_tokenizer
from slm.weights.name_table import identity_table
from slm.weights.pretrained import Pretrained, stored_config
from slm.weights.tensor_source import safetensors_in

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
FORMAT = 1


def write_bundle(
    folder: Path,
    config: ModelConfig,
    weights: Mapping[str, Tensor],
    tokenizer: Tokenizer,
    facts: Mapping[str, Any],
    quantize: str | None = None,
) -> None:
    """Write a bundle beside `folder` and rename it into place: an older one is replaced whole, or stays (`OSError`).
    `facts` are plain types; `quantize` is the mode of `prepare_for_inference` if the `weights` are of its model."""
    with new_folder(folder) as partial:
        said = {"facts": dict(facts), "has_tokenizer": not is_missing(tokenizer)}
        said |= {"quantize": quantize, "block": BLOCK if quantize else None}
        content = {"format": FORMAT, "model": config.to_dict(), **said}
        (partial / CONFIG_FILE).write_text(json.dumps(content, indent=1), encoding="utf-8")
        _save_weights(weights, partial / WEIGHTS_FILE)
        shutil.copymode(partial / CONFIG_FILE, partial / WEIGHTS_FILE)  # safetensors makes it its owner's alone
        if not is_missing(tokenizer):
            tokenizer.save(partial)
        for file in partial.iterdir():
            flush_file(file)
        flush_folder(partial)


def _save_weights(weights: Mapping[str, Tensor], file: Path) -> None:
    try:
        save_file({name: tensor.cpu().contiguous() for name, tensor in weights.items()}, file)
    except SafetensorError as error:  # its word for a full disk too
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(file)) from error


def open_bundle(folder: Path) -> Pretrained:
    """Read all of a bundle but its weights; `UserError` if a file is missing or damaged."""
    content = _read_config(folder / CONFIG_FILE)
    config = stored_config(content["model"], f"{folder / CONFIG_FILE}: model")
    is_whole = content.get("has_tokenizer", True)
    tokenizer = load_tokenizer(folder) if is_whole else missing_tokenizer(str(folder))
    tensors = safetensors_in(folder, WEIGHTS_FILE)
    opened = Pretrained(config, (), tensors, tokenizer, content["facts"], content.get("quantize"))
    return replace(opened, table=identity_table(opened.laid_out()))


def _read_config(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise UserError(f"'{file.parent}' is no model bundle: {file.name} is missing")
    content = read_json_object(file)
    if missing := sorted({"model", "facts", "format"} - content.keys()):
        raise UserError(f"{file} is not a bundle's: it has no '{missing[0]}'")
    if (version := content["format"]) != FORMAT:
        raise UserError(f"{file} has bundle format {version}, expected {FORMAT}; read it by the version that wrote it")
    if (quantize := content.get("quantize")) not in (None, *MODES):
        raise UserError(f"{file}: quantize is {quantize!r}, known are {', '.join(MODES)}; make the bundle again")
    if quantize is not None and content.get("block") != BLOCK:
        again = f"slm-convert source=… quantize={quantize} out={file.parent}"
        raise UserError(f"{file}: its weights are not in blocks of {BLOCK}, as former versions wrote them; {again}")
    return content
