"""What made a run, for ``run.json``: command, versions, and what beside them decides the bits of a result."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from typing import Any

import torch

from slm.masking import masked_argument
from slm.training.run.folder import TIME

_VERSIONS_OF = ("slm", "torch", "pytorch-lightning", "hydra-core", "tokenizers", "numpy")
_VARIABLES = ("SLM_NATIVE", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")
_VARIABLES_CUDA = ("CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE", "PYTORCH_CUDA_ALLOC_CONF")


def provenance() -> dict[str, Any]:
    """What is running: command, time, versions, git commit of the working folder."""
    return {
        "command": [masked_argument(argument) for argument in sys.argv],
        "started": time.strftime(TIME),
        "python": platform.python_version(),
        "machine": platform.platform(),
        "versions": {name: _version(name) for name in _VERSIONS_OF},
        "git_commit": _git_commit(),
    }


def environment(ranks: int = 1) -> dict[str, Any]:
    """Processes that train together, threads, instruction set, switches of torch, variables."""
    return {
        "ranks": ranks,
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        **{name: os.environ.get(name) for name in (*_VARIABLES, *_VARIABLES_CUDA)},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
