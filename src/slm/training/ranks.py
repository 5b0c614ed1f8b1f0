"""Further processes of a run on several devices."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from torch import distributed

_SET_BY_LIGHTNING = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")


def is_first_rank() -> bool:
    """Whether this process is the first of its run, as far as the environment says."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))


def is_rank_of_lightning() -> bool:
    """Whether the first rank started this process. Its end with any status but 0 would make it kill the others."""
    return os.environ.get("LOCAL_RANK", "0") != "0" and "RANK" not in os.environ


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
