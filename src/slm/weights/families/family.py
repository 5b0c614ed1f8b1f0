"""What a family of published models is: its configuration both ways, and its names for our tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from slm.models.config import ModelConfig
from slm.weights.foreign_config import ForeignConfig
from slm.weights.name_table import Entry


@dataclass(frozen=True)
class Family:
    """One ``model_type`` of Hugging Face.

    Attributes:
        model_type, architecture: as ``config.json`` says them.
        read_config: their configuration to the nested values of a `ModelConfig`.
        write_config: the inverse, as far as the family can say what the model is: what it cannot say is found by
            reading it back.
        table: their tensor names, for a model of this shape.
        base_prefix: of all names but the head's; files of the bare model lack it.
        head: their name of the head; stored again by some files although it is tied.
        buffers: ends of names that older files hold beside the weights: masks and frequencies, which follow from
            the configuration.
    """

    model_type: str
    architecture: str
    read_config: Callable[[ForeignConfig], dict[str, Any]]
    write_config: Callable[[ModelConfig], dict[str, Any]]
    table: Callable[[ModelConfig], list[Entry]]
    base_prefix: str
    head: str
    buffers: tuple[str, ...] = ()


def model_values(
    max_seq_len: int, vocab_size: int, position: dict[str, Any], transformer: dict[str, Any], tied: bool
) -> dict[str, Any]:
    """The nested values of a `ModelConfig` whose vocabulary has no padding, so that files can be used as they lie."""
    return {
        "name": "gpt",
        "params": {"max_seq_len": max_seq_len, "vocab_size": vocab_size, "vocab_multiple": 1},
        "modules": {
            "position_embedding": position,
            "transformer": transformer,
            "output_projection": {"tie_weights": tied},
        },
    }


def with_bias(ours: str, theirs: str, bias: bool, **how: Any) -> list[Entry]:
    """Weight and, where there is one, bias of a module that both sides have."""
    kinds = ("weight", "bias") if bias else ("weight",)
    return [Entry(f"{ours}.{kind}", (f"{theirs}.{kind}",), **how) for kind in kinds]
