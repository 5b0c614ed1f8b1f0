"""A whole stack of blocks for one new token a row, in one call of the C kernels."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor, nn

from slm.models.contract import Cache
from slm.models.inference.kv_cache import KVCache
from slm.models.inference.packed_linear import NativeActivation, PackedLinear
from slm.models.inference.quantized import Int4Linear, Int8Linear
from slm.models.kernels.library import INT, LONG, POINTER, WIDTH, compiled, fields, place, serves
from slm.models.modules.embeddings import Rotation
from slm.models.modules.transformer import MLP, GatedMLP, LayerNorm, MultiHeadAttention, RMSNorm

_MOST_ROWS = 64  # with more, torch's own products are faster


class StackedStep(nn.Module):
    """The `decode_step` of a `Transformer`: a `Stack`, made anew when weights move; it is a module to hear of that."""

    stack: Stack | None = None  # also where a part of a block is none that the kernels know
    _made_for: torch.dtype | None = None

    def forward(self, blocks: nn.ModuleList, x: Tensor, rotation: Rotation | None, cache: Cache) -> Tensor | None:
        few = x.shape[1] == 1 and x.shape[0] <= _MOST_ROWS
        if not few or self.training or torch.is_grad_enabled() or not isinstance(cache, KVCache):
            return None
        if self._made_for != x.dtype:
            parts: list[Any] = list(blocks)
            known = serves(x) and all(_is_known(block, x.dtype) for block in parts)
            known = known and len({block.attention.sliding_window for block in parts}) == 1  # the kernel takes one
            self._made_for, self.stack = x.dtype, Stack(blocks, x.dtype) if known else None
        return None if self.stack is None else self.stack(x, rotation, cache)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self._made_for = self.stack = None
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *arguments: Any, **named: Any) -> None:
        self._made_for = self.stack = None
        super()._load_from_state_dict(*arguments, **named)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_made_for": None, "stack": None}


class _Linear(ctypes.Structure):
    _fields_ = [*fields(POINTER, "weight scales bias"), *fields(LONG, "n k"), ("kind", INT)]


class _Norm(ctypes.Structure):
    _fields_ = [*fields(POINTER, "weight bias"), ("eps", ctypes.c_float), ("kind", INT)]


class _Block(ctypes.Structure):
    _fields_ = [
        *fields(_Norm, "attention_norm q_norm k_norm mlp_norm"),
        *fields(_Linear, "qkv out gate up down"),
        *fields(POINTER, "keys values"),
    ]


class _Step(ctypes.Structure):
    _fields_ = [
        *fields(POINTER, "blocks x cos sin lengths"),
        *fields(LONG, "n_blocks rows dim heads kv_heads head_dim window cache_row cache_head turned cos_row"),
        *fields(INT, "activation prenorm parallel half threads"),
    ]


class Stack:
    """The blocks of a `Transformer`, all `_is_known`, as the C kernels want them: addresses of their weights."""

    def __init__(self, blocks: nn.ModuleList, dtype: torch.dtype) -> None:
        first: Any = blocks[0]
        attention = first.attention
        self.dtype = dtype
        self._kept: list[Tensor | None] = []
        self._blocks = (_Block * len(blocks))(*(self._block(block) for block in blocks))
        n_heads, n_kv_heads, _ = attention.heads
        self._step = _Step(
            n_blocks=len(blocks),
            dim=attention.out_proj.out_features,
            heads=n_heads,
            kv_heads=n_kv_heads,
            head_dim=attention.head_dim,
            window=attention.sliding_window or 0,
            activation=first.mlp.activation.kind,
            prenorm=first.prenorm,
            parallel=first.parallel,
            half=dtype == torch.bfloat16,
        )

    def __call__(self, x: Tensor, rotation: Rotation | None, cache: KVCache) -> Tensor:
        """Hidden states (B, 1, C) ahead of the last norm; the cache holds the new keys and values, not yet counted."""
        x = x.clone(memory_format=torch.contiguous_format)
        lengths = torch.tensor(cache.lengths, dtype=torch.int64)
        step = _Step.from_buffer_copy(self._step)  # copies: several threads may decode with one model
        blocks = type(self._blocks).from_buffer_copy(self._blocks)
        step.blocks = ctypes.addressof(blocks)
        layers, rows, heads, room, dim = cache.keys.shape
        fits = (
            cache.keys.dtype == x.dtype
            and cache.keys.device == x.device
            and len(cache.lengths) == x.shape[0] <= rows
            and layers >= len(self._blocks)
            and (heads, dim) == (self._step.kv_heads, self._step.head_dim)
            and max(cache.lengths) < room
        )
        if not fits:
            raise ValueError("the cache has no room for these tokens, or it is another model's")
        step.rows, step.x, step.lengths = x.shape[0], x.data_ptr(), lengths.data_ptr()
        keys, values = cache.keys, cache.values
        layer_bytes = keys.stride(0) * keys.element_size()
        for layer, block in enumerate(blocks):
            block.keys = keys.data_ptr() + layer * layer_bytes
            block.values = values.data_ptr() + layer * layer_bytes
        step.cache_row, step.cache_head = keys.stride(1), keys.stride(2)
        step.threads = torch.get_num_threads()
        if rotation is not None:
            cos, sin = (table.to(x.dtype).contiguous() for table in rotation)
            step.cos, step.sin, step.turned = cos.data_ptr(), sin.data_ptr(), 2 * cos.shape[-1]
            step.cos_row = cos.shape[-1] if cos.numel() > cos.shape[-1] else 0
        if not compiled().decode_step(ctypes.addressof(step)):
            raise MemoryError(f"no memory to decode {x.shape[0]} rows")
        return x

    def _block(self, block: Any) -> _Block:
        attention, mlp = block.attention, block.mlp
        norms = (block.attention_norm, attention.q_norm, attention.k_norm, block.mlp_norm)
        gate = mlp.gate_proj if isinstance(mlp, GatedMLP) else None
        linears = (attention.qkv, attention.out_proj, gate, mlp.up_proj, mlp.down_proj)
        return _Block(*map(self._norm, norms), *map(self._linear, linears))

    def _norm(self, norm: Any) -> _Norm:
        if norm is None:
            return _Norm()
        kind = 1 if isinstance(norm, LayerNorm) else 2
        return _Norm(self._place(norm.weight), self._place(getattr(norm, "bias", None)), norm.eps, kind)

    def _linear(self, layer: Any) -> _Linear:
        if layer is None:
            return _Linear()
        tensors: tuple[Tensor | None, ...]
        if isinstance(layer, Int8Linear | Int4Linear):
            kind = 1 if isinstance(layer, Int8Linear) else 2
            tensors = (layer.codes, layer.scales, layer.bias)
        else:
            kind, tensors = 0, (layer.plain_weight, None, layer.bias)
        return _Linear(*map(self._place, tensors), layer.out_features, layer.in_features, kind)

    def _place(self, tensor: Tensor | None) -> int | None:
        self._kept.append(tensor)  # a reason for it to stay
        return place(tensor)


def _is_known(block: Any, dtype: torch.dtype) -> bool:
    attention, mlp = block.attention, block.mlp
    if type(attention) is not MultiHeadAttention or type(mlp) not in (MLP, GatedMLP):
        return False
    layers = [attention.qkv, attention.out_proj, mlp.up_proj, mlp.down_proj]
    layers += [mlp.gate_proj] if type(mlp) is GatedMLP else []
    norms = [block.attention_norm, block.mlp_norm, attention.q_norm, attention.k_norm]
    norms = [norm for norm in norms if norm is not None]
    return (
        block.embedding_skip is None
        and type(mlp.activation) is NativeActivation
        and all(type(norm) in (LayerNorm, RMSNorm) for norm in norms)
        and all(parameter.dtype == dtype for norm in norms for parameter in norm.parameters())
        and all(_has_kernel(layer, dtype) for layer in layers)
        and all(size % WIDTH == 0 for size in (attention.head_dim, layers[1].out_features, layers[2].out_features))
    )


def _has_kernel(layer: nn.Module, dtype: torch.dtype) -> bool:
    known = isinstance(layer, Int8Linear | Int4Linear) or (
        isinstance(layer, PackedLinear) and layer.native and layer.plain_weight.dtype == dtype
    )
    return known and (layer.bias is None or layer.bias.dtype == dtype)
