"""The MLP's non-linearity by a C kernel, by itself and, with gradients, ahead of the projection that reads it."""

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from slm.models.kernels.library import INT, LONG, POINTER, compiled, fields, is_half, is_shape_alone, place

KINDS = ("gelu", "gelu_tanh", "relu", "relu2", "silu")  # in the order of activation.c


class _Activation(ctypes.Structure):
    _fields_ = [*fields(POINTER, "x up y grad grad_up"), ("n", LONG), *fields(INT, "kind half threads")]


def activate(
    kind: int, x: Tensor, up: Tensor | None, y: Tensor, grad: Tensor | None = None, grad_up: Tensor | None = None
) -> None:
    """Write activation(x), or activation(x) * up, to `y`, which may be `x`; all contiguous, of a multiple of WIDTH.
    `grad`, the gradient of `y`, is overwritten by that of `x`, and `grad_up` by that of `up`."""
    if is_shape_alone(x):
        return
    places = map(place, (x, up, y, grad, grad_up))
    compiled().activate(ctypes.byref(_Activation(*places, x.numel(), kind, is_half(x), torch.get_num_threads())))


class ActivatedProduct(torch.autograd.Function):
    """``apply(x, up, weight, bias, kind)``: ``activation(x) W^T + b``, or of ``activation(x) * up``. Differentiable,
    once. All are contiguous and of one dtype, `kind` counts in `KINDS`. Only `x` and `up` are kept for the way back:
    what the projection read is made again there, in the pass that makes the gradient of `x`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, up: Tensor | None, weight: Tensor, bias: Tensor | None, kind: int) -> Tensor:
        ctx.save_for_backward(x, up, weight)
        ctx.kind = kind
        read = torch.empty_like(x)
        activate(kind, x, up, read)
        with torch.autocast("cpu", enabled=False):
            return linear(read, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, up, weight = ctx.saved_tensors
        needs_x, needs_up, needs_weight, needs_bias, _ = ctx.needs_input_grad
        grad = grad_outputs[0].reshape(-1, grad_outputs[0].shape[-1])
        grad_x = grad_up = grad_weight = None
        read = torch.empty_like(x)
        if needs_x or needs_up:
            grad_x = grad @ weight
            grad_up = None if up is None else torch.empty_like(up)
            activate(ctx.kind, x, up, read, grad_x, grad_up)
            grad_x = grad_x.view_as(x)
        elif needs_weight:
            activate(ctx.kind, x, up, read)
        if needs_weight:
            grad_weight = grad.t() @ read.view(-1, read.shape[-1])
        return grad_x, grad_up, grad_weight, grad.sum(0) if needs_bias else None, None
