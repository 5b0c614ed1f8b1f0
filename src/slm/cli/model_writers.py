"""Models on their way out of slm: what writes one into a folder, in the form that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import slm
from slm.cli.given_model import BEST, run_source
from slm.errors import UserError
from slm.notices import notice
from slm.schema import FORBID_EXTRA, Text

if TYPE_CHECKING:
    from torch import Tensor

    from slm.weights.pretrained import Pretrained

DTYPES = {"f16": "float16", "bf16": "bfloat16"}  # of GGUF's forms those that are dtypes


@dataclass(frozen=True)
class ExportSettings:
    """Which model, and as what; `conf/convert.yaml` has a line on each."""

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

    @property
    def source_path(self) -> Path:
        return Path(str(self.source)).expanduser()

    @property
    def out_path(self) -> Path:
        return Path(str(self.out)).expanduser()


Writer = tuple[Callable[[Path], Mapping[str, Any] | None], int, str]
"""What writes a model into a folder, and tells more of it, perhaps; its parameters, and how they are stored."""


def _model(settings: ExportSettings) -> Writer:
    from slm.study.report.model_story import story_of
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
    mode = None if settings.quantize in ("none", *DTYPES) else settings.quantize
    stored = mode or opened.quantize or str(next(iter(weights.values())).dtype).removeprefix("torch.")
    given = (opened.config, weights, opened.tokenizer, {**opened.facts, "converted_by": f"slm {slm.__version__}"})
    writers: dict[str, Callable[..., None]] = {
        "slm": partial(write_bundle, quantize=mode or opened.quantize),
        "hf": partial(
            write_hugging_face, story=story_of(settings.source_path, settings.license, settings.checkpoint == BEST)
        ),
        "gguf": partial(write_gguf, quantize=mode),
    }
    parameters = sum(entry.numel() for entry in lay_out(opened.config).state_dict().values())
    return lambda out: writers[settings.to](out, *given), parameters, stored


def _revisions(settings: ExportSettings) -> Writer:
    """As `_model`, of the states that a run kept at save points, and of the one that ``checkpoint`` names as main."""
    from slm.training.run.save_point_names import revisions_of
    from slm.weights.export.revisions import CACHE, MAIN, check_name, write_revisions

    out = settings.out_path
    check_name(out.name)
    names = {**revisions_of(settings.source_path), MAIN: settings.checkpoint}
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


def _adapter(settings: ExportSettings) -> Writer:
    """As `_model`, of what LoRA trained in a run."""
    from slm.training.run_again import adapter_of
    from slm.weights.export.peft import write_peft

    adapter = adapter_of(settings.source_path, settings.checkpoint)
    notice(f"to be laid beside {adapter.base}, in the form that to=hf gives it")
    parameters = sum(tensor.numel() for tensor in adapter.state.values())
    given = (adapter.config, adapter.lora, adapter.state, adapter.tokenizer, adapter.base)
    return lambda out: write_peft(out, *given), parameters, "float32"


def writer_of(settings: ExportSettings) -> Writer:
    """Raise `UserError` where there is no such model, or it cannot leave so."""
    return _WAYS.get(settings.to, _model)(settings)


_WAYS: dict[str, Callable[[ExportSettings], Writer]] = {"peft": _adapter, "revisions": _revisions}


def _weights(opened: Pretrained, settings: ExportSettings) -> dict[str, Tensor]:
    import torch

    from slm.models.inference.prepared import MODES, prepare_for_inference

    published = opened.published_dtype if settings.to in ("hf", "gguf") else None
    name = settings.dtype or DTYPES.get(str(settings.quantize)) or published
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
