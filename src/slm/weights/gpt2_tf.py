"""GPT-2 as OpenAI released it: a TensorFlow checkpoint, hparams.json, encoder.json and vocab.bpe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from slm.errors import UserError
from slm.files.reading import read_json_object
from slm.models.config import ModelConfig
from slm.weights.families.family import model_values
from slm.weights.families.gpt2 import MATRICES, NORMS
from slm.weights.laid_out import stored_config
from slm.weights.name_table import SAME, Entry, Layout

HPARAMS_FILE = "hparams.json"


def _matrix_to_ours(theirs: Tensor) -> Tensor:
    return theirs.squeeze(0).t()


def _matrix_to_theirs(ours: Tensor) -> Tensor:
    return ours.t().unsqueeze(0)


_CONV1D = Layout(_matrix_to_ours, _matrix_to_theirs)
"""(1, in, out): the kernel of a convolution of width one."""


def read_hparams(folder: Path) -> ModelConfig:
    """The shape that ``hparams.json`` gives.

    Raises:
        UserError: it is missing or damaged.
    """
    file = folder / HPARAMS_FILE
    if not file.is_file():
        raise UserError(f"'{folder}' is no released GPT-2: {HPARAMS_FILE} is missing")
    values = read_json_object(file)
    sizes: dict[str, Any] = {name: values.get(name) for name in ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer")}
    if missing := [name for name, size in sizes.items() if size is None]:
        raise UserError(f"{file} is damaged ({', '.join(missing)} missing); fetch it again")
    transformer = {"dim": sizes["n_embd"], "n_layers": sizes["n_layer"], "n_heads": sizes["n_head"]}
    return stored_config(
        model_values(sizes["n_ctx"], sizes["n_vocab"], {"kind": "learned"}, transformer, tied=True), str(file)
    )


def gpt2_tf_table(config: ModelConfig) -> list[Entry]:
    """OpenAI's variable names (openai/gpt-2 `src/model.py`)."""
    table = [
        Entry("token_embedding.weight", ("model/wte",), padded=True),
        Entry("position_embedding.weight", ("model/wpe",)),
    ]
    for layer in range(config.modules.transformer.n_layers):
        ours, theirs = f"transformer.blocks.{layer}", f"model/h{layer}"
        for name, our_name in MATRICES.items():  # Hugging Face took OpenAI's names, with dots for slashes
            their_name = f"{theirs}/{name.replace('.', '/')}"
            table.append(Entry(f"{ours}.{our_name}.weight", (f"{their_name}/w",), _CONV1D))
            table.append(Entry(f"{ours}.{our_name}.bias", (f"{their_name}/b",), SAME))
        for name, our_name in NORMS.items():
            table += _norm(f"{ours}.{our_name}", f"{theirs}/{name}")
    return [*table, *_norm("transformer.final_norm", "model/ln_f")]


def _norm(ours: str, theirs: str) -> list[Entry]:
    return [Entry(f"{ours}.weight", (f"{theirs}/g",)), Entry(f"{ours}.bias", (f"{theirs}/b",))]
