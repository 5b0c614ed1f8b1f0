"""A question that all ranks ask each other."""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed


class AnyRank:
    """Whether something is so on any rank. Asked over a group of their own on the host, made when it is asked first:
    that of the gradients may be one of GPUs, to be waited for."""

    def __init__(self) -> None:
        self._group: Any = None

    def has(self, mine: bool, world_size: int) -> bool:
        """The answer of all ranks to `mine` of each; to be called by all of them at the same places."""
        if world_size == 1:
            return mine
        if self._group is None:
            self._group = distributed.new_group(backend="gloo")
        flag = torch.tensor(int(mine))
        distributed.all_reduce(flag, distributed.ReduceOp.MAX, group=self._group)
        return bool(flag)
