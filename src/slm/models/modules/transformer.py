"""The transformer: norms, attention, MLP, blocks, their stack, and who sees whom in it."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm
from torch.utils.checkpoint import checkpoint

from slm.models.config import TransformerConfig
from slm.models.contract import Cache
from slm.models.modules.embeddings import Rotation, rotate
from slm.models.modules.fused import attend, attend_openly, project_activated
from slm.registry import ACTIVATIONS, ATTENTIONS, MLPS, NORMS


@NORMS.register("layer_norm")
class LayerNorm(nn.LayerNorm):
    """(x - mean) / sqrt(var + eps) * weight + bias (Ba et al. 2016)."""


@NORMS.register("rms_norm")
class RMSNorm(nn.RMSNorm):
    """x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich 2019, eq. 4), whatever `bias` says."""

    def __init__(self, dim: int, eps: float, bias: bool) -> None:
        super().__init__(dim, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        # mixed precision hands halves to the norms of queries and keys, which with a gain in fp32 would go by slower
        # operations and come out twice as large
        return rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


def build_norm(config: TransformerConfig, dim: int) -> nn.Module:
    """Of the config's kind, `dim` wide: for the residual stream or a head."""
    return NORMS.get(config.norm)(dim, eps=config.norm_eps, bias=config.bias)


@ATTENTIONS.register("mha")
class MultiHeadAttention(nn.Module):
    """Attention in several heads (Vaswani et al. 2017); a key head may serve several queries' (Ainslie et al. 2023)."""

    prepared = False  # prompts may go by a kernel without gradients; `prepare_for_inference` sets it
    watch: Callable[[Tensor], None] | None = None  # is given the maps (B, H, T, S); `slm.models.trace` sets it

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.heads = (config.n_heads, config.n_kv_heads, config.n_kv_heads)  # of queries, keys, values
        self.head_dim = config.head_dim
        self.dropout = config.dropout
        self.sliding_window = config.window_of(layer)
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
        """Mix `x` (B, T, C) over positions; with a cache the T positions follow those in it, which takes them too.
        `mask` is (T, S) or (B, 1, T, S) bool, True where query t sees key s; None for the causal one. `values`
        (B, T, H_kv, head_dim) are added to the values."""
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
        if self.watch is not None:
            mixed, weights = attend_openly(q, k, v, mask)
            self.watch(weights)
            return self.out_proj(mixed)
        dropout = self.dropout if self.training else 0.0
        return self.out_proj(attend(q, k, v, mask, dropout, cache is not None, self.prepared))


@ACTIVATIONS.register("gelu")
class GELU(nn.GELU):
    """Exact GELU, x * Phi(x) (Hendrycks and Gimpel 2016, eq. 1)."""


@ACTIVATIONS.register("gelu_tanh")
class GELUTanh(nn.GELU):
    """The tanh approximation of GELU that GPT-2 uses (Hendrycks and Gimpel 2016, section 2)."""

    def __init__(self) -> None:
        super().__init__(approximate="tanh")


@ACTIVATIONS.register("relu")
class ReLU(nn.ReLU):
    """max(x, 0)."""


@ACTIVATIONS.register("relu2")
class ReLUSquared(nn.Module):
    """max(x, 0)^2 (So et al. 2021, Primer, section 4)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.relu().square()


@ACTIVATIONS.register("silu")
class SiLU(nn.SiLU):
    """x * sigmoid(x), also known as swish (Elfwing et al. 2017)."""


@MLPS.register("mlp")
class MLP(nn.Module):
    """down(activation(up(x))) (Vaswani et al. 2017, eq. 2), (B, T, C) to (B, T, C)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.up_proj = nn.Linear(config.dim, config.mlp_dim, bias=config.mlp_bias)
        self.activation = ACTIVATIONS.get(config.activation)()
        self.down_proj = nn.Linear(config.mlp_dim, config.dim, bias=config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        return project_activated(self.up_proj(x), None, self.activation, self.down_proj)


@MLPS.register("glu")
class GatedMLP(nn.Module):
    """down(activation(gate(x)) * up(x)) (Shazeer 2020, eq. 6): SwiGLU with silu, GeGLU with gelu."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.dim, config.mlp_dim, bias=config.mlp_bias)
        self.up_proj = nn.Linear(config.dim, config.mlp_dim, bias=config.mlp_bias)
        self.activation = ACTIVATIONS.get(config.activation)()
        self.down_proj = nn.Linear(config.mlp_dim, config.dim, bias=config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        return project_activated(self.gate_proj(x), self.up_proj(x), self.activation, self.down_proj)


class EmbeddingSkip(nn.Module):
    """``a x + b x0``, with x0 what the first block reads; it begins as x (modded-nanogpt, Jordan et al. 2024)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(2))

    @torch.no_grad()
    def reset_parameters(self) -> None:
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
        self.attention = ATTENTIONS.get(config.attention)(config, layer)
        self.mlp_norm = build_norm(config, config.dim)
        self.mlp = MLPS.get(config.mlp)(config)
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
    """`n_layers` blocks; with pre-norm a last norm closes the residual stream."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.windows = [config.window_of(layer) for layer in range(config.n_layers)]
        self.recompute = False  # blocks keep their inputs alone for the backward pass and run again there
        # runs the blocks over one new token a row, (blocks, x, rotation, cache) to (B, 1, C), or gives None;
        # `prepare_for_inference` sets it
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
        """Embeddings (B, T, C) to hidden states (B, T, C), ready for the head. `positions` (B, T) are of rows that hold
        several texts, `values` (B, T, H_kv, head_dim) what each layer adds to the values of its attention."""
        decoded = None
        if cache is not None and values is None and self.decode_step is not None:
            decoded = self.decode_step(self.blocks, x, rotation, cache)
        if decoded is None:
            decoded, masks = x, {window: self._mask(x, cache, positions, window) for window in set(self.windows)}
            for layer, block in enumerate(self.blocks):
                given = (decoded, x, rotation, masks[self.windows[layer]], cache, values and values[layer])
                if self.recompute and torch.is_grad_enabled():
                    decoded = checkpoint(block, *given, use_reentrant=False)
                elif cache is None:
                    decoded = block(*given)
                else:  # not what `torch.compile` made for training: that would be a graph for every layer and length
                    decoded = block._call_impl(*given)
        if cache is not None:
            cache.advance(x.shape[1])
        return self.final_norm(decoded)

    def _mask(self, x: Tensor, cache: Cache | None, positions: Tensor | None, window: int | None) -> Tensor | None:
        if positions is not None:
            return packed_mask(positions, window)
        if cache is not None:
            return cache.mask(x.shape[1], window)
        return attention_mask(x.shape[1], 0, window, x.device)


def attention_mask(length: int, past: int, window: int | None, device: torch.device) -> Tensor | None:
    """(T, past + T) bool of what T new positions see after `past` others; None where plain causality says it all. One
    query sees every key, or its last `window`, by itself: it needs no mask."""
    cut = window is not None and window < past + length
    if length == 1 or not (past or cut):
        return None
    mask = torch.ones(length, past + length, dtype=torch.bool, device=device).tril(past)
    return mask.triu(past - window + 1) if cut and window is not None else mask


def packed_mask(positions: Tensor, window: int | None) -> Tensor:
    """(B, 1, T, T) bool of what tokens see of their own text; in `positions` (B, T) each begins at a 0."""
    length = positions.shape[1]
    text = (positions == 0).cumsum(dim=1)
    mask = (text[:, :, None] == text[:, None, :]).tril()
    return (mask if window is None or window >= length else mask.triu(1 - window))[:, None]
