"""The attention of training by C kernels against the formula in double precision."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from slm.models.kernels.attention import serves_training, train_attention
from slm.models.kernels.library import has

BF16 = torch.bfloat16


def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(D)) V over what stands before, (B, T, H * D)."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -math.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def results(attention, qkv: Tensor, heads: tuple[int, int, int], grad: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
    """What an attention gives for a fused projection (B, T, heads, D), and that projection's gradient."""
    qkv = qkv.detach().requires_grad_()
    q, k, v = (x.transpose(1, 2) for x in qkv.split(heads, dim=2))
    mixed = attention(q, k, v)
    mixed.backward(grad.to(mixed.dtype))
    assert qkv.grad is not None
    return mixed.detach().double(), qkv.grad.double()


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("dtype", [torch.float32, BF16], ids=["fp32", "bf16"])
@pytest.mark.parametrize(
    ("batch", "heads", "kv_heads", "length", "dim"),
    [(2, 3, 3, 64, 32), (1, 4, 2, 100, 64), (2, 2, 1, 129, 48), (32, 1, 1, 2, 16), (1, 2, 2, 200, 144)],
)
def test_values_and_gradients(batch: int, heads: int, kv_heads: int, length: int, dim: int, dtype: torch.dtype) -> None:
    """Whole and broken tiles of 64, shared key heads, widths of whole and broken panels, large scores."""
    if not has("train_attention", dtype == BF16):
        pytest.skip("this processor or compiler has no kernel for it")
    parts = (heads, kv_heads, kv_heads)
    qkv = 2 * torch.randn(batch, length, sum(parts), dim).to(dtype)
    grad = torch.randn(batch, length, heads * dim).to(dtype)
    wanted = results(plain, qkv.double(), parts, grad.double())
    found = results(train_attention, qkv, parts, grad)
    tolerance = 2e-6 if dtype == torch.float32 else 1e-2
    assert distance(found[0], wanted[0]) < tolerance
    assert distance(found[1], wanted[1]) < tolerance


@pytest.mark.skipif(not has("train_attention", False), reason="this processor or compiler has no kernel for it")
def test_nothing_is_seen_ahead_and_threads_change_no_bit() -> None:
    """Later positions change no bit of an earlier one; a head is summed in one order, whoever sums it."""
    q, k, v = torch.randn(3, 2, 2, 70, 32)
    mixed = train_attention(q, k, v)
    k[:, :, 65:] *= 1000
    v[:, :, 65:] = 1e30
    changed = train_attention(q, k, v)
    assert torch.equal(changed[:, :65], mixed[:, :65])
    assert not torch.equal(changed[:, 65:], mixed[:, 65:])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - min(threads, 2))
        assert torch.equal(train_attention(q, k, v), changed)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.skipif(not has("train_attention", True), reason="this processor or compiler has no kernel for it")
def test_autocast_brings_queries_to_its_dtype() -> None:
    """Norms over queries and keys leave them in fp32 under autocast; values come in bf16."""
    q, k, v = torch.randn(3, 1, 2, 20, 16)
    q.requires_grad_()
    with torch.autocast("cpu", dtype=BF16):
        assert serves_training(q, k, v.bfloat16())
        mixed = train_attention(q, k, v.bfloat16())
    assert mixed.dtype == BF16
    mixed.sum().backward()
    assert q.grad is not None
    assert q.grad.dtype == torch.float32
    assert not serves_training(q, k, v.bfloat16())


@pytest.mark.skipif(not has("train_attention", True), reason="this processor or compiler has no kernel for it")
def test_odd_steps_between_rows_are_read_right() -> None:
    """Two bf16 numbers are read at once; rows that begin in the middle of such a pair are copied first."""
    room = torch.randn(1, 2, 30, 33).bfloat16()
    q = room[..., 1:]
    assert torch.equal(train_attention(q, q, q), train_attention(q.clone(), q.clone(), q.clone()))
