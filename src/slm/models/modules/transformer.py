"""The stack of attention and MLP blocks."""

from __future__ import annotations

from torch import Tensor, nn

from slm.models.config import TransformerConfig
from slm.models.modules.attention_mask import attention_mask
from slm.models.modules.build import build_attention, build_mlp, build_norm
from slm.models.modules.embeddings import Rotation
from slm.models.modules.kv_cache import KVCache


class Block(nn.Module):
    """Attention and MLP, each added to the residual stream.

    Pre-norm: ``x + f(norm(x))`` (GPT-2). Post-norm: ``norm(x + f(x))`` (Vaswani et al. 2017).
    Parallel: ``x + attention(norm(x)) + mlp(norm'(x))`` (Wang and Komatsuzaki 2021, GPT-J).
    """

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.prenorm = config.prenorm
        self.parallel = config.parallel_residual
        self.attention_norm = build_norm(config, config.dim)
        self.attention = build_attention(config, layer)
        self.mlp_norm = build_norm(config, config.dim)
        self.mlp = build_mlp(config)
        self.dropout = nn.Dropout(config.dropout) if config.dropout else nn.Identity()

    def forward(
        self, x: Tensor, rotation: Rotation | None = None, mask: Tensor | None = None, cache: KVCache | None = None
    ) -> Tensor:
        """(B, T, C) to (B, T, C); the rest is for the attention."""
        if not self.prenorm:
            x = self.attention_norm(x + self.dropout(self.attention(x, rotation, mask, cache)))
            return self.mlp_norm(x + self.dropout(self.mlp(x)))
        mixed = x + self.dropout(self.attention(self.attention_norm(x), rotation, mask, cache))
        return mixed + self.dropout(self.mlp(self.mlp_norm(x if self.parallel else mixed)))


class Transformer(nn.Module):
    """`n_layers` blocks; with pre-norm a last norm closes the residual stream."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.sliding_window = config.sliding_window
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layers))
        self.final_norm = build_norm(config, config.dim) if config.prenorm else nn.Identity()

    def forward(self, x: Tensor, rotation: Rotation | None = None, cache: KVCache | None = None) -> Tensor:
        """Hidden states (B, T, C), ready for the head."""
        length = x.shape[1]
        window = self.sliding_window
        mask = attention_mask(length, 0, window, x.device) if cache is None else cache.mask(length, window)
        for block in self.blocks:
            x = block(x, rotation, mask, cache)
        if cache is not None:
            cache.advance(length)
        return self.final_norm(x)
