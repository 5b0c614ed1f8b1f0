"""No dropout where two answers, or a model and its reference, are compared: it would be noise in each difference."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.dropout import _DropoutNd


def switch_off_dropout(model: nn.Module) -> bool:
    """Set every probability of dropout in `model` to 0; whether there was one."""
    was_on = False
    for module in model.modules():
        name = "p" if isinstance(module, _DropoutNd) else "dropout"  # of an attention, which gives it to a function
        if isinstance(p := getattr(module, name, None), float) and p > 0:
            setattr(module, name, 0.0)
            was_on = True
    return was_on
