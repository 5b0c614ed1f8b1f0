"""Softmax, loss and gradient of rows of logits in one pass over each row, in place of the logits."""

import ctypes
import functools

import torch
from torch import Tensor

from slm.models.kernels.library import INT, LONG, POINTER, compiled, fields, is_half, is_shape_alone, library, place
from slm.notices import notice


class _CrossEntropy(ctypes.Structure):
    _fields_ = [
        *fields(POINTER, "logits labels nll"),
        *fields(LONG, "rows width vocab"),
        ("cap", ctypes.c_float),
        *fields(INT, "half gradient threads"),
    ]


def has_cross_entropy(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether there is a kernel for logits of this kind."""
    if device.type == "cuda":
        return dtype in (torch.float32, torch.bfloat16, torch.float16) and _has_triton()
    return device.type == "cpu" and dtype in (torch.float32, torch.bfloat16) and library() is not None


@functools.cache
def _has_triton() -> bool:
    # torch brings Triton along where it supports it, which needs a C compiler and a card of compute capability 7.0
    try:
        logits = torch.zeros(1, 2, device="cuda")
        cross_entropy_(logits, torch.zeros(1, dtype=torch.int64, device="cuda"), 2, None, True)
    except Exception as error:  # Triton, its compiler and the driver raise many kinds
        line = next(iter(str(error).splitlines()), "")
        notice(f"the loss goes without its Triton kernel, with more memory and time: {type(error).__name__}: {line}")
        return False
    return True


def cross_entropy_(
    logits: Tensor, labels: Tensor, vocab_size: int, softcap: float | None, with_gradient: bool
) -> Tensor:
    """Negative log-likelihoods (n,) in nats, fp32; computed in fp32 whatever the logits are. The `logits` (n, V') are
    contiguous; columns from `vocab_size` on are padding; the others are bent to ``softcap * tanh(logits / softcap)``.
    With a gradient they are overwritten by that of the likelihoods' sum: softmax - onehot, times the slope of the soft
    cap. `labels` (n,) int64 are negative where nothing is learnt. One that is no token is an `IndexError` on the CPU; a
    GPU, which to refuse it would have to be waited for, makes nan of the likelihood and the gradient."""
    labels = labels.contiguous()
    nll = torch.empty(len(labels), dtype=torch.float32, device=logits.device)
    if is_shape_alone(logits):
        return nll
    if logits.is_cuda:
        from slm.models.kernels.cross_entropy_cuda import cross_entropy_cuda_

        cross_entropy_cuda_(logits, labels, nll, vocab_size, softcap, with_gradient)
        return nll
    if len(labels) and int(labels.max()) >= vocab_size:
        raise IndexError(f"label {int(labels.max())} is no token: there are {vocab_size}")
    assert logits.is_contiguous()
    given = _CrossEntropy(
        *map(place, (logits, labels, nll)),
        *(*logits.shape, vocab_size, softcap or 0.0),
        *(is_half(logits), with_gradient, torch.get_num_threads()),
    )
    compiled().cross_entropy(ctypes.byref(given))
    return nll
