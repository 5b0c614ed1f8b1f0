"""slm-convert: a model from one format to another."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import slm
from slm.cli.app import entry_point
from slm.cli.command import Command
from slm.cli.given_model import BEST, run_source
from slm.cli.result import Result
from slm.errors import UserError, refuse
from slm.notices import notice
from slm.schema import FORBID_EXTRA, Text, checked, together

if TYPE_CHECKING:
    from torch import Tensor

    from slm.weights.pretrained import Pretrained


_DTYPES = {"f16": "float16", "bf16": "bfloat16"}  # of GGUF's forms those that are dtypes


@dataclass(frozen=True)
class _Settings:
    __pydantic_config__ = FORBID_EXTRA
    source: Text | int
    out: Text | int
    checkpoint: Text
    to: Literal["slm", "hf", "gguf", "peft", "revisions"]
    base: Text | int | None
    format: Literal["slm", "hf", "gguf", "peft", "nanogpt", "litgpt", "gpt2_tf"] | None
    dtype: Literal["float32", "bfloat16", "float16"] | None
    mirror: str | None
    quantize: Literal["none", "int8", "int4", "f16", "bf16", "q8_0", "q4_0"] | None
    license: Text | None
    plugins: Any


def convert(_: dict[str, Any], settings: _Settings) -> Result:
    """The command's task."""
    out = Path(str(settings.out)).expanduser()
    if os.path.lexists(out):
        raise UserError(f"out: '{out}' exists already; remove it or name another folder")
    refuse(_problems(settings))
    write, parameters, dtype = _WAYS.get(settings.to, _model)(settings)

    from safetensors import SafetensorError

    try:
        more = write(out) or {}
    except (OSError, SafetensorError) as error:
        raise UserError(f"out: cannot write '{out}' ({error}); make room or name another place") from error
    return Result({"out": str(out), "format": settings.to, "parameters": parameters, "dtype": dtype, **more})


def _problems(settings: _Settings) -> list[str]:
    """What does not go together, a line each."""
    problems = []
    of_format = {"slm": ("int8", "int4"), "gguf": ("f16", "bf16", "q8_0", "q4_0")}
    allowed = ("none", *of_format.get(settings.to, ()))
    if settings.quantize not in (None, *allowed):
        formats = [to for to, modes in of_format.items() if settings.quantize in modes]
        problems.append(
            f"quantize={settings.quantize} is a form of to={formats[0]}; to={settings.to} takes {', '.join(allowed)}"
        )
    if settings.quantize in _DTYPES and settings.dtype is not None:
        problems.append(f"quantize={settings.quantize} names the dtype already; leave dtype out")
    if settings.to == "gguf" and str(settings.out).endswith(".gguf"):
        problems.append(f"out: to=gguf makes a folder, with model.gguf and a Modelfile; name one, not '{settings.out}'")
    if settings.license is not None and settings.to not in ("hf", "revisions"):
        problems.append(f"license is told by a model card, and to={settings.to} writes none; leave it out")
    if settings.to == "peft" and settings.dtype is not None:
        problems.append("to=peft writes what was trained as it was; leave dtype out")
    return problems


_Writer = tuple[Callable[[Path], Mapping[str, Any] | None], int, str]
"""What writes a model into a folder, and tells more of it, perhaps; its parameters, and how they are stored."""


def _model(settings: _Settings) -> _Writer:
    from slm.study.model_story import story_of
    from slm.tokenizers.load import is_missing
    from slm.weights.bundle import write_bundle
    from slm.weights.export.gguf import write_gguf
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
    if opened.quantize is not None and settings.to != "slm":
        theirs = {"gguf": "llama.cpp"}.get(settings.to, "transformers")
        said = f"{theirs} has no form for quantize={opened.quantize}"
        raise UserError(f"to={settings.to}: {said}; convert the unquantized model")
    weights = _weights(opened, settings)
    mode = None if settings.quantize in ("none", *_DTYPES) else settings.quantize
    stored = mode or opened.quantize or str(next(iter(weights.values())).dtype).removeprefix("torch.")
    given = (opened.config, weights, opened.tokenizer, {**opened.facts, "converted_by": f"slm {slm.__version__}"})
    writers: dict[str, Callable[..., None]] = {
        "slm": partial(write_bundle, quantize=mode or opened.quantize),
        "hf": partial(write_hugging_face, story=story_of(Path(str(settings.source)).expanduser(), settings.license)),
        "gguf": partial(write_gguf, quantize=mode),
    }
    parameters = sum(entry.numel() for entry in lay_out(opened.config).state_dict().values())
    return lambda out: writers[settings.to](out, *given), parameters, stored


def _revisions(settings: _Settings) -> _Writer:
    """As `_model`, of the states that a run kept at save points, and of the one that ``checkpoint`` names as main."""
    from slm.training.run.save_point_names import revisions_of
    from slm.weights.export.revisions import CACHE, MAIN, check_name, write_revisions

    out = Path(str(settings.out)).expanduser()
    check_name(out.name)
    names = {**revisions_of(Path(str(settings.source)).expanduser()), MAIN: settings.checkpoint}
    _, parameters, dtype = _model(replace(settings, to="hf"))

    def write_one(checkpoint: str, place: Path) -> None:
        _model(replace(settings, to="hf", checkpoint=checkpoint))[0](place)

    def write(folder: Path) -> Mapping[str, Any]:
        commits = write_revisions(folder, {name: partial(write_one, kept) for name, kept in names.items()})
        notice(
            f"transformers reads no revision of a folder; it does of the name, with HF_HUB_CACHE={out / CACHE} "
            f'HF_HUB_OFFLINE=1: from_pretrained("{out.name}", revision="{next(iter(names))}")'
        )
        return {"revisions": commits}

    return write, parameters, dtype


def _adapter(settings: _Settings) -> _Writer:
    """As `_model`, of what LoRA trained in a run."""
    from slm.training.run_again import adapter_of
    from slm.weights.export.peft import write_peft

    adapter = adapter_of(Path(str(settings.source)).expanduser(), settings.checkpoint)
    notice(f"to be laid beside {adapter.base}, in the form that to=hf gives it")
    parameters = sum(tensor.numel() for tensor in adapter.state.values())
    given = (adapter.config, adapter.lora, adapter.state, adapter.tokenizer, adapter.base)
    return lambda out: write_peft(out, *given), parameters, "float32"


_WAYS: dict[str, Callable[[_Settings], _Writer]] = {"peft": _adapter, "revisions": _revisions}


def _weights(opened: Pretrained, settings: _Settings) -> dict[str, Tensor]:
    import torch

    from slm.models.inference.prepared import MODES, prepare_for_inference

    published = opened.published_dtype if settings.to in ("hf", "gguf") else None
    name = settings.dtype or _DTYPES.get(str(settings.quantize)) or published
    dtype = getattr(torch, name) if name else None
    if name == published not in (None, opened.stored_dtype):
        notice(f"the weights leave as {name}, as they were published before training; dtype=float32 keeps every bit")
    if settings.quantize not in MODES:
        weights = opened.weights(dtype=dtype)
    else:
        model = opened.model(dtype=dtype)
        prepare_for_inference(model, settings.quantize)
        weights = model.state_dict()
    for name, tensor in weights.items() if dtype == torch.float16 else ():
        if tensor.isinf().any():
            raise UserError(f"float16 holds nothing above 65504, and '{name}' does; take bfloat16 or float32")
    return weights


def _checked(values: dict[str, Any]) -> _Settings:
    from slm.training.run_config import import_plugins

    return together(lambda: checked(_Settings, values), lambda: import_plugins(values["plugins"]))[0]


_PATHS = ("source", "base", "out", "mirror")
main = entry_point(Command("convert", convert, _checked, paths=_PATHS), __name__)
