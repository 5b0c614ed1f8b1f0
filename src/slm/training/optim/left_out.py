"""An optimizer step whose loss or gradient is not finite is left out: nothing of it reaches weights or moments."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


def contagious(loss: Tensor) -> Tensor:
    """`loss` itself, to the bit; but the gradient of one that is not finite is nan.

    So the gradient's norm, which ranks have in common, tells of both, and they decide alike without another word. A
    loss of inf by itself may have a finite gradient: that of a label whose logit is -inf.
    """
    return loss * (1 + 0 * loss.detach())


def leave_out_if_bad(optimizer: Optimizer, grad_norm: Tensor, scaler: Any) -> None:
    """Let the next ``optimizer.step()`` change nothing if `grad_norm`, of all its gradients, is not finite.

    A gradient that is None is what every optimizer of torch passes over: weight, moments and its own count of steps
    stay. To find out, the host has to wait for a GPU, unless the optimizer's fused kernel takes the finding itself. The
    `scaler` of fp16 leaves such steps out by itself.
    """
    if scaler is not None:
        return
    if grad_norm.device.type == "cuda" and takes_finding(optimizer):
        leave_finding(optimizer, grad_norm)
    elif not torch.isfinite(grad_norm):
        optimizer.zero_grad(set_to_none=True)


def takes_finding(optimizer: Optimizer) -> bool:
    """Whether the kernel of the step looks at ``found_inf`` on the device, as those for `GradScaler` do."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))


def leave_finding(optimizer: Optimizer, grad_norm: Tensor) -> None:
    """Tell the kernel of the next step, where `grad_norm` lies."""
    optimizer.found_inf = (~torch.isfinite(grad_norm)).float()  # type: ignore[attr-defined]
