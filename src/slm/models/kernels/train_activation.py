"""The MLP's non-linearity and the projection after it, with gradients, by a C kernel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from slm.models.compute_dtype import compute_dtype
from slm.models.kernels.activation import WIDTH, activate, kind_of
from slm.models.kernels.library import library


def serves_activation(x: Tensor, activation: nn.Module, projection: nn.Module) -> bool:
    """Whether there is a kernel for this non-linearity of `x`, before a plain projection, and nobody watches them."""
    return (
        not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and x.numel() % WIDTH == 0
        and x.dtype in (torch.float32, torch.bfloat16)
        and type(projection) is nn.Linear
        and x.dtype == compute_dtype(projection.weight)
        and not any(_hooks(module) for module in (activation, projection))
        and kind_of(activation) is not None
        and library() is not None
    )


def activate_and_project(x: Tensor, up: Tensor | None, activation: nn.Module, projection: nn.Linear) -> Tensor:
    """``projection(activation(x))``, or ``projection(activation(x) * up)``. Differentiable, once.

    Nothing but `x` and `up` is kept for the way back: what the projection read is made again there, in the pass that
    makes the gradient of `x`.

    Args:
        x, up: (..., in) in the dtype that the projection computes in; see `serves_activation`.
    """
    kind = kind_of(activation)
    assert kind is not None
    weight, bias = (None if p is None else p.to(x.dtype) for p in (projection.weight, projection.bias))
    y: Tensor = _ActivatedProduct.apply(x.contiguous(), None if up is None else up.contiguous(), weight, bias, kind)
    return y


class _ActivatedProduct(torch.autograd.Function):
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


def _hooks(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )
