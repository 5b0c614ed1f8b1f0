"""The stack of attention and MLP blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from slm.models.config import TransformerConfig
from slm.models.contract import Cache
from slm.models.modules.attention_mask import attention_mask, packed_mask
from slm.models.modules.build import build_attention, build_mlp, build_norm
from slm.models.modules.embeddings import Rotation


class EmbeddingSkip(nn.Module):
    """``a x + b x0``, with x0 what the first block reads; it begins as x (modded-nanogpt, Jordan et al. 2024)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(2))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """The stream alone."""
        self.weight.copy_(torch.tensor([1.0, 0.0]))

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        stream, skip = self.weight.to(x.dtype)
        return stream * x + skip * embedded


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
        self.embedding_skip = EmbeddingSkip() if config.embedding_skip else None

    def forward(
        self,
        x: Tensor,
        embedded: Tensor,
        rotation: Rotation | None = None,
        mask: Tensor | None = None,
        cache: Cache | None = None,
        values: Tensor | None = None,
    ) -> Tensor:
        """(B, T, C) to (B, T, C); `embedded` (B, T, C) is what the first block reads, the rest is for the attention."""
        also = {} if values is None else {"values": values}  # attentions of others need not know of it
        if self.embedding_skip is not None:
            x = self.embedding_skip(x, embedded)
        if not self.prenorm:
            x = self.attention_norm(x + self.dropout(self.attention(x, rotation, mask, cache, **also)))
            return self.mlp_norm(x + self.dropout(self.mlp(x)))
        mixed = x + self.dropout(self.attention(self.attention_norm(x), rotation, mask, cache, **also))
        return mixed + self.dropout(self.mlp(self.mlp_norm(x if self.parallel else mixed)))


class Transformer(nn.Module):
    """`n_layers` blocks; with pre-norm a last norm closes the residual stream.

    Attributes:
        recompute: blocks keep their inputs alone for the backward pass and run again there.
        decode_step: runs the blocks over one new token a row, or gives None: (blocks, x, rotation, cache) to (B, 1, C);
            `prepare_for_inference` sets it.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.sliding_window = config.sliding_window
        self.recompute = False
        self.decode_step: nn.Module | None = None
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layers))
        self.final_norm = build_norm(config, config.dim) if config.prenorm else nn.Identity()

    def forward(
        self,
        x: Tensor,
        rotation: Rotation | None = None,
        cache: Cache | None = None,
        positions: Tensor | None = None,
        values: list[Tensor] | None = None,
    ) -> Tensor:
        """Hidden states (B, T, C), ready for the head.

        Args:
            x, rotation, cache: embeddings (B, T, C), by what attention turns, and what it has seen.
            positions: (B, T), of rows that hold several texts.
            values: what each layer adds to the values of its attention, (B, T, H_kv, head_dim).
        """
        decoded = None
        if cache is not None and values is None and self.decode_step is not None:
            decoded = self.decode_step(self.blocks, x, rotation, cache)
        x = self._through_blocks(x, rotation, cache, positions, values) if decoded is None else decoded
        if cache is not None:
            cache.advance(x.shape[1])
        return self.final_norm(x)

    def _through_blocks(
        self,
        x: Tensor,
        rotation: Rotation | None,
        cache: Cache | None,
        positions: Tensor | None,
        values: list[Tensor] | None,
    ) -> Tensor:
        length, window = x.shape[1], self.sliding_window
        if positions is not None:
            mask: Tensor | None = packed_mask(positions, window)
        else:
            mask = attention_mask(length, 0, window, x.device) if cache is None else cache.mask(length, window)
        embedded = x
        of_layers: list[Tensor | None] = [*values] if values else [None] * len(self.blocks)
        for block, added in zip(self.blocks, of_layers, strict=True):
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(block, x, embedded, rotation, mask, cache, added, use_reentrant=False)
            elif cache is None:
                x = block(x, embedded, rotation, mask, None, added)
            else:  # not by what `torch.compile` made for training: that would be a graph for every layer and length
                x = block._call_impl(x, embedded, rotation, mask, cache, added)
        return x
