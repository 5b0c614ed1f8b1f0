"""Parameters to optimizer groups: weight decay acts on matrices only."""

from __future__ import annotations

from typing import Any

from torch import nn

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
    vectors = [p for p in trainable if p.dim() < 2]
    if not by_role:
        groups = [_group(matrices, weight_decay), _group(vectors, 0.0)]
        return [group for group in groups if group["params"]]
    hidden = _hidden(model)
    groups = [
        {**_group([p for p in matrices if id(p) in hidden], weight_decay), "role": HIDDEN},
        {**_group([p for p in matrices if id(p) not in hidden], weight_decay), "role": TABLE},
        {**_group(vectors, 0.0), "role": VECTOR},
    ]
    return [group for group in groups if group["params"]]


def _group(parameters: list[nn.Parameter], weight_decay: float) -> dict[str, Any]:
    return {"params": parameters, "weight_decay": weight_decay}


def _hidden(model: nn.Module) -> set[int]:
    """The weights of linear layers, the head's left out."""
    head = getattr(model, "head_weight", None)
    weights = (module.weight for module in model.modules() if isinstance(module, nn.Linear))
    return {id(weight) for weight in weights if weight is not head}
