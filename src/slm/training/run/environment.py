"""What beside versions decides the bits of a result: threads, instruction set, switches of torch, the environment."""

from __future__ import annotations

import os
from typing import Any

import torch

_VARIABLES = (
    "SLM_NATIVE",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "CUBLAS_WORKSPACE_CONFIG",
    "NVIDIA_TF32_OVERRIDE",
    "PYTORCH_CUDA_ALLOC_CONF",
)


def environment(ranks: int = 1) -> dict[str, Any]:
    """Plain types, for ``run.json``.

    Args:
        ranks: processes that train together.
    """
    return {
        "ranks": ranks,
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        **{name: os.environ.get(name) for name in _VARIABLES},
    }
