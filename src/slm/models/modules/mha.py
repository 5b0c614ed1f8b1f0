"""Causal multi-head self-attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from slm.models.config import TransformerConfig
from slm.models.modules.kv_cache import KVCache


class MultiHeadAttention(nn.Module):
    """softmax(Q K^T / sqrt(head_dim)) V with a causal mask (Vaswani et al. 2017, eq. 1)."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.n_heads = config.n_heads
        self.dropout = config.dropout
        self.qkv = nn.Linear(config.dim, 3 * config.dim, bias=config.qkv_bias)
        self.out_proj = nn.Linear(config.dim, config.dim, bias=config.bias)

    def forward(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        """Mix `x` (B, T, C) over positions; with a cache the T positions follow those in it."""
        batch, length, dim = x.shape
        # (B, T, 3C) -> three of (B, n_heads, T, head_dim)
        q, k, v = self.qkv(x).view(batch, length, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        mask = None
        if cache is not None:
            past = cache.length
            k, v = cache.update(self.layer, k, v)
            if past and length > 1:  # query i stands at position past + i and sees all up to it
                mask = torch.ones(length, past + length, dtype=torch.bool, device=x.device).tril(past)
        mixed = scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=mask is None and length > 1,
        )
        return self.out_proj(mixed.transpose(1, 2).reshape(batch, length, dim))
