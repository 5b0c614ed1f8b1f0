"""Further processes of a run on several devices."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from torch import distributed

_SET_BY_LIGHTNING = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")


@contextmanager
def own_ranks() -> Iterator[None]:
    """What Lightning starts for a run ends with it: the next run of this process (a sweep's) starts its own.

    Ranks that something else started (torchrun, Slurm, Lightning in another process) are left alone.
    """
    started_elsewhere = "LOCAL_RANK" in os.environ
    try:
        yield
    finally:
        if not started_elsewhere and "LOCAL_RANK" in os.environ:
            if distributed.is_available() and distributed.is_initialized():
                distributed.destroy_process_group()
            for name in _SET_BY_LIGHTNING:
                os.environ.pop(name, None)
