"""Configuration to a model and its loss."""

from __future__ import annotations

import inspect

from torch import nn

from slm.errors import UserError
from slm.models.config import ModelConfig
from slm.registry import LOSSES, MODELS


def build_model(config: ModelConfig) -> nn.Module:
    """The registered model `config.name`, with fresh weights on torch's default device. Raises `UserError` where a loss
    cannot have its hidden states."""
    model: nn.Module = MODELS.get(config.name).from_config(config)
    takes = inspect.signature(model.forward).parameters.values()
    if not any(p.name == "return_hidden" or p.kind is p.VAR_KEYWORD for p in takes):
        raise UserError(
            f"the model '{config.name}' ({type(model).__qualname__}): its forward has no argument return_hidden; add "
            "return_hidden=False and, where it is true, return self.hidden_states(…) in place of logits"
        )
    return model


def build_loss(config: ModelConfig) -> nn.Module:
    """The training loss; see `slm.models.modules.losses` for what it takes."""
    loss, softcap = config.modules.loss, config.modules.output_projection.softcap
    return LOSSES.get(loss.kind)(ignore_index=loss.ignore_index, softcap=softcap)
