"""Causal attention with its gradients by the C kernels, for training."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from slm.models.compute_dtype import compute_dtype
from slm.models.kernels.library import has_train_attention, library

_WIDTH = 16  # numbers that the kernel takes at a time
_P, _L, _I = ctypes.c_void_p, ctypes.c_long, ctypes.c_int


class _Training(ctypes.Structure):
    _fields_ = [
        *((name, _P) for name in ("q", "k", "v")),
        *((f"{name}_{step}", _L) for name in "qkv" for step in ("row", "head", "position")),
        *((name, _P) for name in ("out", "norms", "grad_out", "grad_q", "grad_k", "grad_v")),
        *((name, _L) for name in ("rows", "heads", "kv_heads", "dim", "length")),
        *((name, _I) for name in ("half", "threads")),
    ]


def serves_training(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether there is a kernel for queries (B, H, T, D) and keys and values (B, H_kv, T, D) like these."""
    return (
        q.device.type == "cpu"
        and q.shape[2] == k.shape[2]
        and q.shape[-1] % _WIDTH == 0
        and (dtype := compute_dtype(q)) in (torch.float32, torch.bfloat16)
        and (torch.is_autocast_enabled("cpu") or k.dtype == v.dtype == dtype)
        and not torch.compiler.is_compiling()
        and has_train_attention(dtype == torch.bfloat16)
    )


def train_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Mixed values (B, T, H * D); position t sees positions 0 to t. Differentiable, once.

    Computes what ``scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)`` does, under autocast in its
    dtype; sums and weights are fp32.

    Args:
        q: (B, H, T, D).
        k, v: (B, H_kv, T, D), H a multiple of H_kv.
    """
    dtype = compute_dtype(q)
    mixed: Tensor = _Attention.apply(q.to(dtype), k.to(dtype), v.to(dtype))
    return mixed


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (_readable(x) for x in (q, k, v))
        batch, heads, length, dim = q.shape
        out = q.new_empty(batch, length, heads * dim)
        norms = torch.empty(batch, heads, length, dtype=torch.float32)
        _run(q, k, v, out, norms)
        ctx.save_for_backward(q, k, v, out, norms)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, ...]:
        q, k, v, out, norms = ctx.saved_tensors
        # in the order of positions, heads, numbers: that of the projection they came from
        grads = [torch.empty_like(x.transpose(1, 2), memory_format=torch.contiguous_format) for x in (q, k, v)]
        _run(q, k, v, out, norms, grad_outputs[0].to(out.dtype).contiguous(), *grads)
        return tuple(grad.transpose(1, 2) for grad in grads)


def _readable(x: Tensor) -> Tensor:
    """With a head's numbers side by side and even steps, as two bf16 numbers are read at once."""
    return x if x.stride(-1) == 1 and not any(step % 2 for step in x.stride()[:3]) else x.contiguous()


def _run(q: Tensor, k: Tensor, v: Tensor, out: Tensor, norms: Tensor, *grads: Tensor) -> None:
    batch, heads, length, dim = q.shape
    addresses: list[int | None] = [x.data_ptr() for x in grads] or [None] * 4
    training = _Training(
        *(x.data_ptr() for x in (q, k, v)),
        *(step for x in (q, k, v) for step in x.stride()[:3]),
        out.data_ptr(),
        norms.data_ptr(),
        *addresses,
        *(batch, heads, k.shape[1], dim, length),
        *(q.dtype == torch.bfloat16, torch.get_num_threads()),
    )
    found = library()
    assert found is not None
    if not found.train_attention(ctypes.byref(training), bool(grads)):
        raise MemoryError(f"no memory for the attention of {length} positions")
