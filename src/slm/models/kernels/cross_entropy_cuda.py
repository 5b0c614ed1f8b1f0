"""Softmax, loss and gradient of rows of logits, in place of the logits, on a GPU: the kernel, in Triton."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_MOST_BLOCK = 2048  # numbers of a row that a program takes at a time


def cross_entropy_cuda_(
    logits: Tensor, labels: Tensor, nll: Tensor, vocab_size: int, softcap: float | None, with_gradient: bool
) -> None:
    """Fill `nll` (n,), fp32; the rest as `slm.models.kernels.cross_entropy.cross_entropy_` says."""
    rows, width = logits.shape
    assert logits.stride(1) == 1
    block = min(_MOST_BLOCK, triton.next_power_of_2(width))
    sizes = (logits.stride(0), width, vocab_size, softcap or 1.0)
    constants = {"capped": softcap is not None, "with_gradient": with_gradient, "block": block}
    if rows:
        with torch.cuda.device_of(logits):
            _rows[(rows,)](logits, labels, nll, *sizes, **constants, num_warps=max(1, min(8, block // 256)))


@triton.jit  # type: ignore[untyped-decorator]
def _bent(x, cap, capped: tl.constexpr):  # type: ignore[no-untyped-def]
    # the logit, and tanh of its share of the cap
    if capped:
        share = 2 * tl.sigmoid(2 * x / cap) - 1
        return cap * share, share
    else:
        return x, x


@triton.jit  # type: ignore[untyped-decorator]
def _rows(  # type: ignore[no-untyped-def]
    logits, labels, nll, step, width, vocab, cap, capped: tl.constexpr, with_gradient: tl.constexpr, block: tl.constexpr
):
    """A row a program, in two passes: the largest logit and the sum of exponentials (Milakov and Gimelshein 2018,
    algorithm 3, for each of block lanes), then the gradient."""
    row = tl.program_id(0).to(tl.int64)
    start = logits + row * step
    label = tl.load(labels + row)
    learnt = label >= 0
    known = label < vocab

    lanes = tl.arange(0, block)
    top = tl.full((block,), float("-inf"), tl.float32)
    total = tl.zeros((block,), tl.float32)
    for first in range(0, vocab, block):
        column = first + lanes
        x = tl.load(start + column, mask=column < vocab, other=0.0).to(tl.float32)
        bent, _ = _bent(x, cap, capped)
        bent = tl.where(column < vocab, bent, float("-inf"))
        above = tl.maximum(top, bent)
        # a lane that has seen nothing yet: its sum is 0, and -inf less -inf must not make it nan
        total = total * tl.where(above == top, 1.0, tl.exp(top - above)) + tl.where(
            column < vocab, tl.exp(bent - above), 0.0
        )
        top = above
    largest = tl.max(top, 0)
    log_norm = largest + tl.log(tl.sum(total * tl.exp(top - largest), 0))

    of_label = tl.load(start + tl.where(learnt & known, label, 0)).to(tl.float32)
    of_label, _ = _bent(of_label, cap, capped)
    loss = tl.where(known, log_norm - of_label, float("nan"))
    tl.store(nll + row, tl.where(learnt, loss, 0.0))

    if with_gradient:
        tl.debug_barrier()  # `of_label` is read by all before it is written over
        weight = tl.where(learnt, tl.where(known, 1.0, float("nan")), 0.0)
        for first in range(0, width, block):
            column = first + lanes
            x = tl.load(start + column, mask=column < vocab, other=0.0).to(tl.float32)
            bent, share = _bent(x, cap, capped)
            gradient = tl.exp(bent - log_norm) - tl.where(column == label, 1.0, 0.0)
            if capped:
                gradient = gradient * (1 - share * share)
            gradient = tl.where((column < vocab) & learnt, gradient * weight, 0.0)
            tl.store(start + column, gradient.to(logits.dtype.element_ty), mask=column < width)
