"""A Hugging Face folder, its configuration and weights read as ours; and which family can say what ours is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from slm.errors import UserError
from slm.files.reading import read_json_object
from slm.models.config import ModelConfig
from slm.registry import FAMILIES
from slm.weights.families.family import Family
from slm.weights.foreign_config import ForeignConfig
from slm.weights.name_table import Table
from slm.weights.pretrained import stored_config
from slm.weights.tensor_source import SafetensorsFiles, safetensors_in

CONFIG_FILE = "config.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")


@dataclass(frozen=True)
class HuggingFaceModel:
    """A folder that `transformers` would load: its family, and our shape of the same model."""

    folder: Path
    family: Family
    config: ModelConfig

    @property
    def table(self) -> Table:
        return self.family.table(self.config)

    def tensors(self) -> SafetensorsFiles:
        """Its weights under the table's names: base prefix added where the file lacks it, buffers left out."""
        _refuse_pickles(self.folder)
        source = safetensors_in(self.folder)
        known = {name for entry in self.table for name in entry.theirs}
        prefix = self.family.base_prefix

        def rule(name: str) -> str | None:
            full = prefix + name if name not in known and prefix + name in known else name
            is_buffer = full not in known and name.endswith(self.family.buffers)
            return None if is_buffer or self._is_the_tied_head(source, full, known) else full

        source.rename(rule)
        return source

    def _is_the_tied_head(self, source: SafetensorsFiles, name: str, known: set[str]) -> bool:
        """Whether this is the embedding, stored a second time."""
        if name != self.family.head or name in known:
            return False
        embedding = self.table[0].theirs[0]
        names = (embedding, embedding.removeprefix(self.family.base_prefix))
        stored = next((n for n in names if n in source.shapes), None)
        if stored is not None and not torch.equal(source.read(name), source.read(stored)):
            raise UserError(
                f"{source.where}: '{name}' differs from '{stored}', though {CONFIG_FILE} ties them; "
                "correct tie_word_embeddings"
            )
        return True


def read_hugging_face(folder: Path) -> HuggingFaceModel:
    """Read ``config.json``; `UserError` if slm has no table for its family, or no model for what it asks."""
    file = folder / CONFIG_FILE
    values = read_json_object(file)
    model_type = values.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        known = ", ".join(FAMILIES.names())
        raise UserError(f"{file}: model_type '{model_type}' is not one that slm can read (known: {known})")
    if values.get("quantization_config"):
        raise UserError(f"{file}: quantized weights cannot be read; take the model's unquantized release")
    family: Family = FAMILIES.get(model_type)()
    theirs = ForeignConfig(values, str(file))
    ours = family.read_config(theirs)
    theirs.stop_if_any()
    return HuggingFaceModel(folder, family, stored_config(ours, f"{file}: model"))


def family_of(config: ModelConfig) -> Family:
    """The first family that writes the configuration and reads back the same model.

    `UserError` if none can; it says what the nearest cannot say.
    """
    lost = {}
    for name in FAMILIES.names():
        family: Family = FAMILIES.get(name)()
        lost[name] = _lost_by(family, config)
        if not lost[name]:
            return family
    nearest = min(lost, key=lambda name: len(lost[name]))
    raise UserError(
        f"no family that transformers knows can hold this model; the nearest, {nearest}, cannot say "
        + ", ".join(lost[nearest])
        + " (formats: slm keeps everything)"
    )


def _lost_by(family: Family, config: ModelConfig) -> list[str]:
    theirs = ForeignConfig(family.write_config(config), family.model_type)
    ours = family.read_config(theirs)
    if theirs.problems:
        return theirs.problems
    wanted = _said(config)
    try:
        back = _said(ModelConfig.from_dict(ours))
    except UserError:  # what is left of the model is none: heads that do not divide the width, say
        back = {}
    return [f"{key}={value}" for key, value in wanted.items() if key not in back or back[key] != value]


def _said(config: ModelConfig) -> dict[str, Any]:
    """What of a model shows in its logits, by dotted name."""
    values = config.architecture()
    if config.modules.transformer.norm == "rms_norm":
        values.pop("modules.transformer.bias")  # this norm has none, and the other parts say their own
    return values


def _refuse_pickles(folder: Path) -> None:
    pickled = [file.name for pattern in _PICKLES for file in sorted(folder.glob(pattern))]
    if pickled and not any((folder / f"model.safetensors{end}").is_file() for end in ("", ".index.json")):
        raise UserError(
            f"'{folder}' holds its weights only as {pickled[0]}, a pickle, which could run any code when read; take "
            "the model's safetensors, or write them where you trust the file: model.save_pretrained(…) of transformers"
        )
