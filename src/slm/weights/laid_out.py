"""A model with its shapes but no memory, and how weights get into it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from slm.errors import UserError
from slm.models.config import ModelConfig
from slm.models.modules.build import build_model

_MOST_LAYERS = 1 << 10
"""Far above any model's; laying out takes about four milliseconds each."""
_LARGEST_SIZE = 1 << 24
"""Far above that of any model there is; beyond, torch's counting overflows."""


def stored_config(values: Mapping[str, Any], where: str) -> ModelConfig:
    """The shape that a file gives for its weights.

    Raises:
        UserError: it is no shape, or none that weights could have.
    """
    config = ModelConfig.from_dict(values, where=where)
    if config.params.vocab_size is None:
        raise UserError(f"{where}.params.vocab_size is missing")
    transformer = config.modules.transformer
    sizes = {**config.flat(), "n_heads * head_dim": transformer.n_heads * transformer.head_dim}
    limits = {"modules.transformer.n_layers": _MOST_LAYERS}
    absurd = [key for key, size in sizes.items() if isinstance(size, int) and size > limits.get(key, _LARGEST_SIZE)]
    if absurd:
        raise UserError(f"{where}: no model is so large: {', '.join(absurd)}")
    return config


def lay_out(config: ModelConfig) -> nn.Module:
    """The model on the meta device: no number is drawn, no memory taken."""
    with torch.device("meta"):
        return build_model(config)


def take_weights(model: nn.Module, weights: dict[str, Tensor], device: torch.device) -> None:
    """Give a laid-out `model` its weights, and compute the buffers that are never saved (position tables)."""
    _fill_buffers(model, device)
    model.load_state_dict(weights, assign=True)


def _fill_buffers(model: nn.Module, device: torch.device) -> None:
    """`init_weights` of a module that holds such a buffer does it; weights, still without memory here, it leaves be."""
    for module in model.modules():
        unsaved = module._non_persistent_buffers_set
        laid_out = {n: buffer for n, buffer in module._buffers.items() if n in unsaved and buffer is not None}
        for name, buffer in laid_out.items():
            module._buffers[name] = torch.empty_like(buffer, device=device)
        if laid_out:
            with torch.no_grad():
                module.init_weights()  # type: ignore[operator]
