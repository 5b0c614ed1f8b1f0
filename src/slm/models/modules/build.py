"""Configuration to modules, for the kinds that a registry holds."""

from __future__ import annotations

from torch import nn

from slm.models.config import LossConfig, ModelConfig, TransformerConfig
from slm.registry import LOSSES, MODELS, NORMS, POSITION_EMBEDDINGS


def build_model(config: ModelConfig) -> nn.Module:
    """The registered model `config.name`, with fresh weights on torch's default device."""
    model: nn.Module = MODELS.get(config.name).from_config(config)
    return model


def build_norm(config: TransformerConfig) -> nn.Module:
    """A norm over the residual stream's width."""
    norm: nn.Module = NORMS.get(config.norm)(config.dim, eps=config.norm_eps, bias=config.bias)
    return norm


def build_position_embedding(config: ModelConfig) -> nn.Module:
    """The module that adds positions to the token embedding."""
    kind = config.modules.position_embedding.kind
    embedding: nn.Module = POSITION_EMBEDDINGS.get(kind)(config.params.max_seq_len, config.modules.transformer.dim)
    return embedding


def build_loss(config: LossConfig) -> nn.Module:
    """The training loss; see `slm.models.modules.losses` for what it takes."""
    loss: nn.Module = LOSSES.get(config.kind)(ignore_index=config.ignore_index)
    return loss
