"""Greedy decoding's last operation, which takes torch several times as long on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from slm.models.kernels.library import library


def largest_places(logits: Tensor) -> Tensor:
    """(B, V) to (B,) int64: where the largest of each row stands; of equals the first, as `torch.max` may not give."""
    found = library() if logits.device.type == "cpu" and logits.stride(1) == 1 else None
    if found is None or logits.dtype not in (torch.float32, torch.bfloat16):
        return logits.max(dim=-1).indices  # on a CPU two to four times as fast as argmax
    rows, n = logits.shape
    places = torch.empty(rows, dtype=torch.int64)
    half = logits.dtype == torch.bfloat16
    found.largest_places(logits.data_ptr(), places.data_ptr(), half, rows, n, logits.stride(0), torch.get_num_threads())
    return places
