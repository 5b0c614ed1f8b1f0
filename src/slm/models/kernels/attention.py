"""Causal attention by the C kernels: of a whole prompt, without gradients; of training, with them."""

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from slm.models.contract import compute_dtype
from slm.models.kernels.library import (
    INT,
    LONG,
    POINTER,
    WIDTH,
    compiled,
    fields,
    has,
    is_half,
    is_shape_alone,
    place,
    serves,
)


class _Prompt(ctypes.Structure):
    _fields_ = [
        *fields(POINTER, "q k v"),
        *fields(LONG, "q_row q_head q_position kv_row kv_head kv_position"),
        *fields(POINTER, "out"),
        *fields(LONG, "rows heads kv_heads dim length keys_length window"),
        *fields(INT, "half threads"),
    ]


def serves_prompt(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether `attend_prompt` can read these."""
    return (
        serves(q)
        and q.dtype == k.dtype == v.dtype
        and q.shape[-1] % WIDTH == 0
        and q.stride(-1) == k.stride(-1) == v.stride(-1) == 1
        and q.numel() > 0
        and not (torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad))
    )


def attend_prompt(q: Tensor, k: Tensor, v: Tensor, window: int | None = None) -> Tensor:
    """Mixed values (B, T, H * D) of the last T of S positions, each of which sees those up to itself, or a `window`.
    Queries are (B, H, T, D), keys and values (B, H_kv, S, D), H a multiple of H_kv."""
    batch, heads, length, dim = q.shape
    out = q.new_empty((batch, length, heads * dim))
    if v.stride() != k.stride():
        k, v = k.contiguous(), v.contiguous()
    prompt = _Prompt(
        *map(place, (q, k, v)),
        *(*q.stride()[:3], *k.stride()[:3]),
        place(out),
        *(batch, heads, k.shape[1], dim, length, k.shape[2], window or 0),
        *(is_half(q), torch.get_num_threads()),
    )
    if not compiled().attend_prompt(ctypes.byref(prompt)):
        raise MemoryError(f"no memory for the attention of {length} over {k.shape[2]} positions")
    return out


class _Training(ctypes.Structure):
    _fields_ = [
        *fields(POINTER, "q k v"),
        *fields(LONG, " ".join(f"{name}_row {name}_head {name}_position" for name in "qkv")),
        *fields(POINTER, "out norms grad_out grad_q grad_k grad_v"),
        *fields(LONG, "rows heads kv_heads dim length"),
        *fields(INT, "half threads"),
    ]


def serves_training(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether `train_attention` takes queries (B, H, T, D) and keys and values (B, H_kv, T, D) like these."""
    return (
        q.device.type == "cpu"
        and q.shape[2] == k.shape[2]
        and q.shape[-1] % WIDTH == 0
        and (dtype := compute_dtype(q)) in (torch.float32, torch.bfloat16)
        and (torch.is_autocast_enabled("cpu") or k.dtype == v.dtype == dtype)
        and not torch.compiler.is_compiling()
        and has("train_attention", dtype == torch.bfloat16)
    )


def train_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Mixed values (B, T, H * D); position t sees positions 0 to t. Differentiable, once. What SDPA computes with
    ``is_causal=True, enable_gqa=True``, under autocast in its dtype; sums and weights are fp32."""
    dtype = compute_dtype(q)
    return _Attention.apply(q.to(dtype), k.to(dtype), v.to(dtype))


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (_with_even_steps(x) for x in (q, k, v))
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


def _with_even_steps(x: Tensor) -> Tensor:
    # and a head's numbers side by side, as two bf16 numbers are read at once
    return x if x.stride(-1) == 1 and not any(step % 2 for step in x.stride()[:3]) else x.contiguous()


def _run(q: Tensor, k: Tensor, v: Tensor, out: Tensor, norms: Tensor, *grads: Tensor) -> None:
    if is_shape_alone(q):
        return
    batch, heads, length, dim = q.shape
    training = _Training(
        *map(place, (q, k, v)),
        *(step for x in (q, k, v) for step in x.stride()[:3]),
        *map(place, (out, norms, *(grads or (None,) * 4))),
        *(batch, heads, k.shape[1], dim, length),
        *(is_half(q), torch.get_num_threads()),
    )
    if not compiled().train_attention(ctypes.byref(training), bool(grads)):
        raise MemoryError(f"no memory for the attention of {length} positions")
