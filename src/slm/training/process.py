"""The process that a run has: which of its ranks it is, its memory, what it says."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
from torch import distributed

_SET_BY_LIGHTNING = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")

# malloc.h: M_TRIM_THRESHOLD, M_MMAP_MAX
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_MOST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc to keep what is freed, for the next training step to take; whether it does.

    By itself it maps every large tensor afresh and unmaps it when it is freed: the kernel clears each page again, in
    a training step of GPT-2's 124 M a quarter of a million of them. The most that is held does not grow.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(_MMAP_MAX, 0) and libc.mallopt(_TRIM_THRESHOLD, _MOST))


class FrozenGarbage(pl.Callback):
    """What exists when training starts is set aside: a collection looks at what the steps made, not at half a million
    objects of libraries that will not go away. Nothing is switched off, so cycles are still found."""

    def on_train_start(self, *_: Any) -> None:
        gc.collect()
        gc.freeze()

    def teardown(self, *_: Any, **__: Any) -> None:
        gc.unfreeze()


def quiet_lightning() -> None:
    """Silence Lightning's hints about devices, loaders and workers that do not apply or are decided here; what matters
    of them is said here in one line each."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", module="lightning_fabric")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*TensorFloat32 tensor cores.*")  # trainer.precision says what is meant


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
