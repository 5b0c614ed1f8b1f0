"""A model from a GGUF file: llama.cpp's form, and of most models that are passed around."""

from pathlib import Path
from typing import Any

from slm.weights.gguf.parts import read_gguf
from slm.weights.gguf.read_config import read_shape
from slm.weights.gguf.read_file import MAGIC
from slm.weights.gguf.read_tokenizer import read_tokenizer
from slm.weights.own_sampling import SAMPLING, own_sampling
from slm.weights.pretrained import Pretrained

_SAMPLING = {"temperature": "temp", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p"}


def is_gguf(file: Path) -> bool:
    """By what it begins with, whatever it is called."""
    with file.open("rb") as content:
        return content.read(len(MAGIC)) == MAGIC


def open_gguf(file: Path) -> Pretrained:
    """Read all of a model but its weights; `UserError` if it is damaged, or asks what our model cannot."""
    opened = read_gguf(file)
    config, table, tensors = read_shape(opened)
    facts: dict[str, Any] = {"source": str(file), "format": "gguf"}
    said = {ours: opened.values.get(f"general.sampling.{theirs}") for ours, theirs in _SAMPLING.items()}
    facts[SAMPLING] = {name: value for name, value in said.items() if value is not None}
    if not own_sampling(facts, str(file)):
        del facts[SAMPLING]
    return Pretrained(config, table, tensors, read_tokenizer(opened.values, str(file)), facts)
