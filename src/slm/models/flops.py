"""Floating-point operations of a model, for utilisation figures."""

from __future__ import annotations

from torch import nn

from slm.models.config import ModelConfig


def training_flops_per_token(model: nn.Module) -> float:
    """Operations of one token's forward and backward pass at the model's full length.

    ``6 N + 12 L H D T`` with N the parameters that take part in matrix products, H heads of width D and T
    positions seen (Chowdhery et al. 2022, appendix B); embedding look-ups are none, a tied head counts once.
    """
    config: ModelConfig = model.config  # type: ignore[assignment]
    shape = config.modules.transformer
    in_products = sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear))
    if config.modules.output_projection.tie_weights:
        in_products += config.padded_vocab_size * shape.dim
    seen = min(config.params.max_seq_len, shape.sliding_window or config.params.max_seq_len)
    return 6.0 * in_products + 12.0 * shape.n_layers * shape.n_heads * shape.head_dim * seen
