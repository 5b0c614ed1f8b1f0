"""A checkpoint of nanoGPT (karpathy/nanoGPT `train.py`): ``ckpt.pt``, a dictionary with the model and its arguments."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from slm.errors import UserError
from slm.models.config import ModelConfig
from slm.weights.families.family import ForeignConfig
from slm.weights.families.gpt2 import gpt2
from slm.weights.name_table import SAME, Table
from slm.weights.pretrained import stored_config
from slm.weights.tensor_source import TensorSource
from slm.weights.torch_files import tensors_of

CHECKPOINT = "ckpt.pt"
_LENGTH = "block_size"
_SIZES = ("n_layer", "n_head", "n_embd", "vocab_size")
_OF_TRAINING = ("dropout",)


def is_nanogpt(content: Any) -> bool:
    """Whether a file of torch that holds this is one."""
    return isinstance(content, Mapping) and {"model", "model_args"} <= content.keys()


def read_nanogpt(content: Mapping[str, Any], file: Path) -> tuple[ModelConfig, Table, TensorSource]:
    """The shape, and the tensors under the table's names: GPT-2's, whose matrices are (out, in) here, with GELU as it
    is defined. `UserError` if it asks for what a GPT-2 is not."""
    given = content["model_args"]
    if not isinstance(given, Mapping):
        raise UserError(f"{file} is no checkpoint of nanoGPT: model_args is no mapping")
    theirs = ForeignConfig(given, f"{file}: model_args")
    theirs.problems += [
        f"{key}={given[key]!r}" for key in given if key not in (*_SIZES, _LENGTH, "bias", *_OF_TRAINING)
    ]
    for key in (*_SIZES, _LENGTH):
        theirs.count(key)
    has_bias = theirs.flag("bias", True)  # as before there was a switch
    theirs.stop_if_any()
    sizes = {key: given[key] for key in _SIZES}
    as_gpt2 = ForeignConfig({**sizes, "n_positions": given[_LENGTH], "activation_function": "gelu"}, str(file))
    ours = gpt2().read_config(as_gpt2)
    ours["modules"]["transformer"].update(bias=has_bias, qkv_bias=has_bias)
    config = stored_config(ours, str(file))
    kept = [entry for entry in gpt2().table(config) if has_bias or not entry.ours.endswith(".bias")]
    table = [replace(entry, layout=SAME) for entry in kept]
    source = tensors_of(content["model"], file)
    source = source.renamed(lambda name: None if name.endswith(gpt2().buffers) and name not in _named(table) else name)
    return config, table, source.without_copy(gpt2().head, table[0].theirs[0], "it is no GPT-2")


def _named(table: Table) -> set[str]:
    return {name for entry in table for name in entry.theirs}
