"""A model with its shapes but no memory, and how weights get into it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from slm.models.config import ModelConfig
from slm.models.modules.build import build_model


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
        laid_out = {name: buffer for name, buffer in module._buffers.items() if buffer is not None and buffer.is_meta}
        for name, buffer in laid_out.items():
            module._buffers[name] = torch.empty_like(buffer, device=device)
        if laid_out:
            with torch.no_grad():
                module.init_weights()  # type: ignore[operator]
