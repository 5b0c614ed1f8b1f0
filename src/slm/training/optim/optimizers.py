"""Parameters to optimizer groups: weight decay acts on matrices only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from slm.notices import notice

HIDDEN, TABLE, VECTOR = "hidden", "table", "vector"


def parameter_groups(model: nn.Module, weight_decay: float, by_role: bool = False) -> list[dict[str, Any]]:
    """Trainable parameters in two groups: matrices with `weight_decay`, the rest (biases, norm gains) without.

    Frozen parameters are in neither.

    Args:
        model: a registered model.
        weight_decay: of the matrices.
        by_role: for an optimizer that treats matrices by what they do: groups have a ``role``, and matrices are two
            groups, the weights of linear layers (``hidden``) and embeddings, positions and the head (``table``).
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in trainable if p.dim() >= 2]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.dim() < 2], "weight_decay": 0.0},
    ]
    if by_role:
        hidden = _hidden(model)
        tables = {"params": [p for p in matrices if id(p) not in hidden], "weight_decay": weight_decay, "role": TABLE}
        groups[0] |= {"params": [p for p in matrices if id(p) in hidden], "role": HIDDEN}
        groups[1:] = [tables, {**groups[1], "role": VECTOR}]
    return [group for group in groups if group["params"]]


def say_unread(optimizer: Optimizer, settings: Mapping[str, Any]) -> None:
    """Say which of its settings no parameter takes that is trained.

    An optimizer that treats parameters by what they do has ``settings_of_roles``: role -> names of settings.
    """
    groups = optimizer.param_groups
    of_roles: Mapping[str, tuple[str, ...]] = getattr(optimizer, "settings_of_roles", {})
    taken = {name for group in groups for name in of_roles.get(group.get("role", ""), ())}
    unread = [name for name in dict.fromkeys(sum(of_roles.values(), ())) if name not in taken]
    if settings.get("weight_decay") and not any(group.get("weight_decay") for group in groups):
        unread.append("weight_decay")
    if unread:
        notice(f"optimizer: nothing that is trained takes {', '.join(unread)}; what they are set to changes nothing")


def _hidden(model: nn.Module) -> set[int]:
    """The weights of linear layers, the head's left out."""
    head = getattr(model, "head_weight", None)
    weights = (module.weight for module in model.modules() if isinstance(module, nn.Linear))
    return {id(weight) for weight in weights if weight is not head}
