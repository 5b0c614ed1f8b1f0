"""Causal multi-head self-attention."""

from __future__ import annotations

from torch import Tensor, nn

from slm.models.config import TransformerConfig
from slm.models.contract import Cache
from slm.models.modules.build import build_norm
from slm.models.modules.embeddings import Rotation
from slm.models.modules.fused import attend
from slm.models.modules.rotary import rotate
from slm.registry import register_attention


@register_attention("mha")
class MultiHeadAttention(nn.Module):
    """Attention in several heads (Vaswani et al. 2017); a key head may serve several queries' (Ainslie et al. 2023).

    Attributes:
        prepared: prompts may go by a kernel without gradients; `prepare_for_inference` sets it.
    """

    prepared = False

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.heads = (config.n_heads, config.n_kv_heads, config.n_kv_heads)  # of queries, keys, values
        self.head_dim = config.head_dim
        self.dropout = config.dropout
        self.sliding_window = config.sliding_window
        self.qkv = nn.Linear(config.dim, sum(self.heads) * config.head_dim, bias=config.qkv_bias)
        self.q_norm = build_norm(config, config.head_dim) if config.qk_norm else None
        self.k_norm = build_norm(config, config.head_dim) if config.qk_norm else None
        self.out_proj = nn.Linear(config.n_heads * config.head_dim, config.dim, bias=config.out_proj_bias)

    def forward(
        self,
        x: Tensor,
        rotation: Rotation | None = None,
        mask: Tensor | None = None,
        cache: Cache | None = None,
        values: Tensor | None = None,
    ) -> Tensor:
        """Mix `x` (B, T, C) over positions; with a cache the T positions follow those in it.

        Args:
            x: (B, T, C).
            rotation: by what queries and keys turn, from the position embedding.
            mask: (T, S) or (B, 1, T, S) bool, True where query t sees key s; None for the causal one.
            cache: past keys and values; takes those of `x` too.
            values: (B, T, H_kv, head_dim), added to the values.
        """
        batch, length, _ = x.shape
        # (B, T, H, head_dim) each, then heads before positions
        q, k, v = self.qkv(x).view(batch, length, -1, self.head_dim).split(self.heads, dim=2)
        if values is not None:
            v = v + values.to(v.dtype)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        if cache is not None:
            k, v = cache.update(self.layer, k, v)
        if mask is None and length == 1 and self.sliding_window is not None:
            k, v = k[:, :, -self.sliding_window :], v[:, :, -self.sliding_window :]
        dropout = self.dropout if self.training else 0.0
        return self.out_proj(attend(q, k, v, mask, dropout, cache is not None, self.prepared))
