"""The stack of attention and MLP blocks."""

from __future__ import annotations

from torch import Tensor, nn

from slm.models.config import TransformerConfig
from slm.models.modules.build import build_norm
from slm.models.modules.kv_cache import KVCache
from slm.models.modules.mha import MultiHeadAttention
from slm.models.modules.mlp import MLP


class Block(nn.Module):
    """Attention then MLP, each added to the residual stream.

    Pre-norm: ``x + f(norm(x))`` (GPT-2). Post-norm: ``norm(x + f(x))`` (Vaswani et al. 2017).
    """

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.prenorm = config.prenorm
        self.attention_norm = build_norm(config)
        self.attention = MultiHeadAttention(config, layer)
        self.mlp_norm = build_norm(config)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        if self.prenorm:
            x = x + self.dropout(self.attention(self.attention_norm(x), cache))
            return x + self.dropout(self.mlp(self.mlp_norm(x)))
        x = self.attention_norm(x + self.dropout(self.attention(x, cache)))
        return self.mlp_norm(x + self.dropout(self.mlp(x)))


class Transformer(nn.Module):
    """`n_layers` blocks; with pre-norm a last norm closes the residual stream."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layers))
        self.final_norm = build_norm(config) if config.prenorm else nn.Identity()

    def forward(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        """Hidden states (B, T, C), ready for the head."""
        for block in self.blocks:
            x = block(x, cache)
        if cache is not None:
            cache.advance(x.shape[1])
        return self.final_norm(x)
