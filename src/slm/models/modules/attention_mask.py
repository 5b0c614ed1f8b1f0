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


def packed_mask(positions: Tensor, window: int | None) -> Tensor:
    """(B, 1, T, T) bool of what tokens see of their own text, in rows that hold several, one after another.

    `positions` (B, T) int64 says where each token stands in its text; a text begins at each 0.
    """
    length = positions.shape[1]
    text = (positions == 0).cumsum(dim=1)
    mask = (text[:, :, None] == text[:, None, :]).tril()
    return (mask if window is None or window >= length else mask.triu(1 - window))[:, None]
