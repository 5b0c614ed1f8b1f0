"""Configuration to modules, for the kinds that a registry holds."""

from __future__ import annotations

import inspect
from typing import cast

from torch import nn

from slm.errors import UserError
from slm.models.config import ModelConfig, TransformerConfig
from slm.registry import ATTENTIONS, LOSSES, MLPS, MODELS, NORMS, POSITION_EMBEDDINGS


def build_model(config: ModelConfig) -> nn.Module:
    """The registered model `config.name`, with fresh weights on torch's default device.

    Raises:
        UserError: a loss cannot have its hidden states.
    """
    model: nn.Module = MODELS.get(config.name).from_config(config)
    takes = inspect.signature(model.forward).parameters.values()
    if not any(p.name == "return_hidden" or p.kind is p.VAR_KEYWORD for p in takes):
        raise UserError(
            f"the model '{config.name}' ({type(model).__qualname__}): its forward has no argument return_hidden; add "
            "return_hidden=False and, where it is true, return self.hidden_states(…) in place of logits"
        )
    return model


def build_norm(config: TransformerConfig, dim: int) -> nn.Module:
    """A norm over the last dimension, `dim` wide: the residual stream's or a head's."""
    return cast(nn.Module, NORMS.get(config.norm)(dim, eps=config.norm_eps, bias=config.bias))


def build_attention(config: TransformerConfig, layer: int) -> nn.Module:
    """The attention of one layer; `MultiHeadAttention` says what its forward takes."""
    return cast(nn.Module, ATTENTIONS.get(config.attention)(config, layer))


def build_mlp(config: TransformerConfig) -> nn.Module:
    """The position-wise layer, (B, T, C) to (B, T, C)."""
    return cast(nn.Module, MLPS.get(config.mlp)(config))


def build_position_embedding(config: ModelConfig) -> nn.Module:
    """How positions enter; see `slm.models.modules.embeddings.PositionEmbedding`."""
    return cast(nn.Module, POSITION_EMBEDDINGS.get(config.modules.position_embedding.kind)(config))


def build_loss(config: ModelConfig) -> nn.Module:
    """The training loss; see `slm.models.modules.losses` for what it takes."""
    loss, softcap = config.modules.loss, config.modules.output_projection.softcap
    return cast(nn.Module, LOSSES.get(loss.kind)(ignore_index=loss.ignore_index, softcap=softcap))
