"""Who sees whom."""

from __future__ import annotations

import torch
from torch import Tensor


def attention_mask(length: int, past: int, window: int | None, device: torch.device) -> Tensor | None:
    """(T, past + T) bool of what T new positions see after `past` others; None where plain causality says it all.

    One query sees every key, or its last `window`, by itself: it needs no mask.
    """
    cut = window is not None and window < past + length
    if length == 1 or not (past or cut):
        return None
    mask = torch.ones(length, past + length, dtype=torch.bool, device=device).tril(past)
    return mask.triu(past - window + 1) if cut and window is not None else mask
