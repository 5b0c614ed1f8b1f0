"""The stack of attention and MLP blocks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from slm.models.config import TransformerConfig
from slm.models.inference.kv_cache import KVCache
from slm.models.inference.stack import MOST_ROWS, Stack
from slm.models.modules.attention_mask import attention_mask, packed_mask
from slm.models.modules.build import build_attention, build_mlp, build_norm
from slm.models.modules.embedding_paths import EmbeddingSkip
from slm.models.modules.embeddings import Rotation


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
        cache: KVCache | None = None,
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
    """`n_layers` blocks; with pre-norm a last norm closes the residual stream."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.sliding_window = config.sliding_window
        self.recompute = False  # blocks keep their inputs alone for the backward pass and run again there
        self._stacked: tuple[torch.dtype, Stack | None] | None = None
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layers))
        self.final_norm = build_norm(config, config.dim) if config.prenorm else nn.Identity()

    def forward(
        self,
        x: Tensor,
        rotation: Rotation | None = None,
        cache: KVCache | None = None,
        positions: Tensor | None = None,
        values: list[Tensor] | None = None,
    ) -> Tensor:
        """Hidden states (B, T, C), ready for the head.

        Args:
            x, rotation, cache: embeddings (B, T, C), by what attention turns, and what it has seen.
            positions: (B, T), of rows that hold several texts.
            values: what each layer adds to the values of its attention, (B, T, H_kv, head_dim).
        """
        length = x.shape[1]
        window = self.sliding_window
        if cache is not None and values is None and (stack := self._stack(x)) is not None:
            x = stack(x, rotation, cache)
            cache.advance(1)
            return self.final_norm(x)
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
        if cache is not None:
            cache.advance(length)
        return self.final_norm(x)

    def _stack(self, x: Tensor) -> Stack | None:
        """The blocks in one call, for one new token a row of a model that `prepare_for_inference` has prepared."""
        if x.shape[1] != 1 or x.shape[0] > MOST_ROWS or self.training or torch.is_grad_enabled():
            return None
        if self._stacked is None or self._stacked[0] != x.dtype:
            self._stacked = x.dtype, Stack.of(self.blocks, x)
        return self._stacked[1]

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self._stacked = None  # it knows where the weights lie
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *arguments: Any, **named: Any) -> None:
        self._stacked = None
        super()._load_from_state_dict(*arguments, **named)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_stacked": None}
