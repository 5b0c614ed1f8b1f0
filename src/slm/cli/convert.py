"""slm-convert: a model from one format to another."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import slm
from slm.cli.app import entry_point
from slm.cli.command import Command
from slm.cli.given_model import BEST, run_source
from slm.errors import UserError
from slm.notices import notice
from slm.schema import FORBID_EXTRA, Text, checked, together

if TYPE_CHECKING:
    from torch import Tensor

    from slm.weights.pretrained import Pretrained


@dataclass(frozen=True)
class _Settings:
    __pydantic_config__ = FORBID_EXTRA
    source: Text | int
    out: Text | int
    checkpoint: Text
    to: Literal["slm", "hf"]
    base: Text | int | None
    format: Literal["slm", "hf", "gguf", "peft", "nanogpt", "litgpt", "gpt2_tf"] | None
    dtype: Literal["float32", "bfloat16", "float16"] | None
    mirror: str | None
    quantize: Literal["int8", "int4"] | None
    plugins: Any


def convert(_: dict[str, Any], settings: _Settings) -> None:
    """The command's task."""
    out = Path(str(settings.out)).expanduser()
    if os.path.lexists(out):
        raise UserError(f"out: '{out}' exists already; remove it or name another folder")

    from safetensors import SafetensorError

    from slm.tokenizers.load import is_missing
    from slm.weights.bundle import write_bundle
    from slm.weights.hugging_face import write_hugging_face
    from slm.weights.open_model import find_source, open_source
    from slm.weights.pretrained import lay_out

    base = None if settings.base is None else str(settings.base)
    source = find_source(str(settings.source), settings.format, settings.mirror, base)
    if settings.checkpoint != BEST:
        source = run_source(str(settings.source), settings.checkpoint)
    opened = open_source(source)
    if is_missing(opened.tokenizer):
        said = "has no tokenizer, and models are converted whole"
        raise UserError(f"source: '{settings.source}' {said}; add tokenizer.json")
    quantize = settings.quantize or opened.quantize
    if quantize is not None and settings.to == "hf":
        raise UserError(f"to=hf: transformers has no form for quantize={quantize}; convert the unquantized model")
    weights = _weights(opened, settings)
    facts = {**opened.facts, "converted_by": f"slm {slm.__version__}"}
    write = partial(write_bundle, quantize=quantize) if settings.to == "slm" else write_hugging_face
    try:
        write(out, opened.config, weights, opened.tokenizer, facts)
    except (OSError, SafetensorError) as error:
        raise UserError(f"out: cannot write '{out}' ({error}); make room or name another place") from error
    stored = quantize or str(next(iter(weights.values())).dtype).removeprefix("torch.")
    parameters = sum(entry.numel() for entry in lay_out(opened.config).state_dict().values())
    print(json.dumps({"out": str(out), "format": settings.to, "parameters": parameters, "dtype": stored}))


def _weights(opened: Pretrained, settings: _Settings) -> dict[str, Tensor]:
    import torch

    from slm.models.inference.prepared import prepare_for_inference

    name = settings.dtype or (opened.published_dtype if settings.to == "hf" else None)
    dtype = getattr(torch, name) if name else None
    if settings.dtype is None and name not in (None, opened.stored_dtype):
        notice(f"the weights leave as {name}, as they were published before training; dtype=float32 keeps every bit")
    if settings.quantize is None:
        weights = opened.weights(dtype=dtype)
    else:
        model = opened.model(dtype=dtype)
        prepare_for_inference(model, settings.quantize)
        weights = model.state_dict()
    for name, tensor in weights.items() if dtype == torch.float16 else ():
        if tensor.isinf().any():
            raise UserError(f"dtype=float16 holds nothing above 65504, and '{name}' does; take bfloat16 or float32")
    return weights


def _checked(values: dict[str, Any]) -> _Settings:
    from slm.training.run_config import import_plugins

    return together(lambda: checked(_Settings, values), lambda: import_plugins(values["plugins"]))[0]


main = entry_point(Command("convert", convert, _checked, paths=("source", "base", "out", "mirror")), __name__)
