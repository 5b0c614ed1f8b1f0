"""What an optimizer is given: parameters in groups, weight decay on matrices only; and steps to leave out."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from slm.notices import notice

HIDDEN, TABLE, VECTOR = "hidden", "table", "vector"


def parameter_groups(model: nn.Module, weight_decay: float, by_role: bool = False) -> list[dict[str, Any]]:
    """Trainable parameters in two groups: matrices with `weight_decay`, the rest (biases, norm gains) without. With
    `by_role`, for an optimizer that treats matrices by what they do, groups have a ``role``, and matrices are two, the
    weights of linear layers (``hidden``) and embeddings, positions and the head (``table``)."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    matrices, vectors = [p for p in trainable if p.dim() >= 2], [p for p in trainable if p.dim() < 2]
    groups: list[Any] = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    if by_role:
        head = getattr(model, "head_weight", None)
        linear = (module.weight for module in model.modules() if isinstance(module, nn.Linear))
        hidden = {id(weight) for weight in linear if weight is not head}
        groups = [
            {"params": [p for p in matrices if id(p) in hidden], "weight_decay": weight_decay, "role": HIDDEN},
            {"params": [p for p in matrices if id(p) not in hidden], "weight_decay": weight_decay, "role": TABLE},
            {"params": vectors, "weight_decay": 0.0, "role": VECTOR},
        ]
    return [group for group in groups if group["params"]]


def say_unread(optimizer: Optimizer, settings: Mapping[str, Any]) -> None:
    """Say which of its settings no parameter takes that is trained. An optimizer that treats parameters by what they do
    has ``settings_of_roles``: role -> names of settings."""
    groups = optimizer.param_groups
    of_roles: Mapping[str, tuple[str, ...]] = getattr(optimizer, "settings_of_roles", {})
    taken = {name for group in groups for name in of_roles.get(group.get("role", ""), ())}
    unread = [name for name in dict.fromkeys(sum(of_roles.values(), ())) if name not in taken]
    if settings.get("weight_decay") and not any(group.get("weight_decay") for group in groups):
        unread.append("weight_decay")
    if unread:
        notice(f"optimizer: nothing that is trained takes {', '.join(unread)}; what they are set to changes nothing")


def contagious(loss: Tensor) -> Tensor:
    """`loss` itself, to the bit; but the gradient of one that is not finite is nan: so its norm, which ranks have in
    common, tells of both, and they decide alike without another word. A loss of inf by itself may have a finite
    gradient: that of a label whose logit is -inf."""
    return loss * (1 + 0 * loss.detach())


def leave_out_if_bad(optimizer: Optimizer, grad_norm: Tensor, scaler: Any) -> None:
    """Let the next ``optimizer.step()`` change nothing if `grad_norm`, of all its gradients, is not finite. One that is
    None is what every optimizer of torch passes over: weight, moments and its own count of steps stay. To find out, the
    host has to wait for a GPU, unless the optimizer's fused kernel takes the finding itself. The `scaler` of fp16
    leaves such steps out by itself."""
    if scaler is not None:
        return
    if grad_norm.device.type == "cuda" and getattr(optimizer, "_step_supports_amp_scaling", False):
        leave_finding(optimizer, grad_norm)
    elif not torch.isfinite(grad_norm):
        optimizer.zero_grad(set_to_none=True)


def leave_finding(optimizer: Optimizer, grad_norm: Tensor) -> None:
    """Tell the fused kernel of the next step, where `grad_norm` lies, as `GradScaler` does."""
    optimizer.found_inf = (~torch.isfinite(grad_norm)).float()  # type: ignore[attr-defined]
