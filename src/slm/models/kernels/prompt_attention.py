"""Causal attention of a whole prompt by the C kernels, for inference: no gradient flows through."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from slm.models.kernels.library import library

_WIDTH = 16  # numbers that the kernel takes at a time
_P, _L, _I = ctypes.c_void_p, ctypes.c_long, ctypes.c_int


class _Prompt(ctypes.Structure):
    _fields_ = [
        *((name, _P) for name in ("q", "k", "v")),
        *((name, _L) for name in ("q_row", "q_head", "q_position", "kv_row", "kv_head", "kv_position")),
        ("out", _P),
        *((name, _L) for name in ("rows", "heads", "kv_heads", "dim", "length", "keys_length", "window")),
        *((name, _I) for name in ("half", "threads")),
    ]


def attend_prompt(q: Tensor, k: Tensor, v: Tensor, window: int | None = None) -> Tensor:
    """Mixed values (B, T, H * D) of the last T of S positions, each of which sees those up to itself.

    Args:
        q: (B, H, T, D).
        k, v: (B, H_kv, S, D), S at least T; H a multiple of H_kv.
        window: how many positions one sees, itself included; None for all before it.
    """
    batch, heads, length, dim = q.shape
    out = q.new_empty((batch, length, heads * dim))
    found = library()
    assert found is not None
    if v.stride() != k.stride():
        k, v = k.contiguous(), v.contiguous()
    prompt = _Prompt(
        *(tensor.data_ptr() for tensor in (q, k, v)),
        *q.stride()[:3],
        *k.stride()[:3],
        out.data_ptr(),
        *(batch, heads, k.shape[1], dim, length, k.shape[2], window or 0),
        *(q.dtype == torch.bfloat16, torch.get_num_threads()),
    )
    if not found.attend_prompt(ctypes.byref(prompt)):
        raise MemoryError(f"no memory for the attention of {length} over {k.shape[2]} positions")
    return out


def serves_prompt(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether the kernel can read these."""
    return (
        library() is not None
        and q.device.type == "cpu"
        and q.dtype in (torch.float32, torch.bfloat16)
        and q.dtype == k.dtype == v.dtype
        and q.shape[-1] % _WIDTH == 0
        and q.stride(-1) == k.stride(-1) == v.stride(-1) == 1
        and q.numel() > 0
        and not (torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad))
    )
