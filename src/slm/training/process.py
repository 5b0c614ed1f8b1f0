"""The process that a run has: which of its ranks it is, its memory, what it says, and for ``run.json`` what it is: what
beside the settings decides the bits of a result."""

import ctypes
import gc
import logging
import os
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

import pytorch_lightning as pl
import torch
from torch import distributed

import slm
from slm.masking import masked_argument
from slm.training.run.folder import TIME

_VERSIONS_OF = ("torch", "pytorch-lightning", "hydra-core", "tokenizers", "numpy")
_VARIABLES = ("SLM_NATIVE", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")
_VARIABLES_CUDA = ("CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE", "PYTORCH_CUDA_ALLOC_CONF")
_SET_BY_LIGHTNING = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")

# malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_MOST = 2**31 - 1
MAPPED_FROM = 2**25  # bytes; the most that glibc takes for M_MMAP_THRESHOLD


def keep_freed_memory() -> bool:
    """Tell glibc to keep what is freed, for the next training step to take; whether it does.

    By itself it maps every large tensor afresh and unmaps it when it is freed: the kernel clears each page again, in
    a training step of GPT-2's 124 M a quarter of a million of them. Tensors from 32 MiB on still go back: the hole
    that one of them left did not always take the next, and a head of 50,000 tokens grew a process so by its own 150 MB
    every few steps, to half as much again as it ever held (docs/log.md).
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(_MMAP_THRESHOLD, MAPPED_FROM) and libc.mallopt(_TRIM_THRESHOLD, _MOST))


class FrozenGarbage(pl.Callback):
    """What exists when training starts is set aside: a collection looks at what the steps made, not at half a million
    objects of libraries that will not go away. Nothing is switched off, so cycles are still found."""

    def on_train_start(self, *_: Any) -> None:
        gc.collect()
        gc.freeze()

    def teardown(self, *_: Any, **__: Any) -> None:
        gc.unfreeze()


def quiet_trainer(device: str, **settings: Any) -> pl.Trainer:
    """For one pass over data on one device: it writes no file and shows nothing."""
    off = ("logger", "enable_checkpointing", "enable_model_summary", "enable_progress_bar")
    return pl.Trainer(accelerator=device, devices=1, **{**dict.fromkeys(off, False), **settings})


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


def provenance(ranks: int = 1) -> dict[str, Any]:
    """What is running: command, time, versions, git commit of the working folder; how many processes train together,
    threads, instruction set, switches of torch, variables."""
    return {
        "command": [masked_argument(argument) for argument in sys.argv],
        "started": time.strftime(TIME),
        "python": platform.python_version(),
        "machine": platform.platform(),
        "versions": {"slm": slm.__version__, **{name: metadata.version(name) for name in _VERSIONS_OF}},
        "git_commit": _git_commit(),
        "environment": {
            "ranks": ranks,
            "threads": torch.get_num_threads(),
            "cpu": torch.backends.cpu.get_cpu_capability(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "cuda": torch.version.cuda if torch.cuda.is_available() else None,
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "matmul_precision": torch.get_float32_matmul_precision(),
            **{name: os.environ.get(name) for name in (*_VARIABLES, *_VARIABLES_CUDA)},
        },
    }


def _git_commit() -> str | None:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
