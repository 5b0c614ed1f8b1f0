"""Log-probabilities through a head that is no plain matrix, such as a quantized one."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from slm.models.contract import CausalLM

_ROWS = 512


def has_plain_head(model: nn.Module) -> bool:
    """`model.head_weight` is all that makes logits of hidden states."""
    return getattr(model, "inference_head", None) is None


def log_probs_through_head(model: CausalLM, hidden: Tensor, labels: Tensor) -> Tensor:
    """Log-probability of each of `labels` (B, T) after `hidden` (B, T, C) in nats, (B, T) fp32 without gradient; 0
    where the label is negative."""
    rows, targets = hidden.flatten(0, -2), labels.flatten()
    places = (targets >= 0).nonzero().squeeze(1)
    found = torch.zeros(len(targets), device=hidden.device)
    for chosen in places.split(_ROWS):
        logits = model.head(rows[chosen]).float()
        found[chosen] = -cross_entropy(logits, targets[chosen], reduction="none")
    return found.view_as(labels)
