"""Which number format a run really uses, and why, in one line."""

from __future__ import annotations

import time

import torch
from torch import nn

from slm.training.config import SHORT_NAMES

_WORTH_IT = 1.1  # bf16 must be this much faster than fp32 to be chosen
_PROBE_TOKENS = 1024


def resolve_precision(asked: str | int, device: str, dim: int, measured: str | None = None) -> tuple[str, str]:
    """Lightning's name of the precision to run at, and the sentence that says how it came about.

    ``auto`` takes bf16 where it is faster, on a CPU for a model of width `dim`; what it came to before the run was
    interrupted, `measured`, stays. `device` is a type of torch's.
    """
    name = SHORT_NAMES.get(str(asked), str(asked))
    if name == "auto":
        if measured:
            return measured, "as before the interruption"
        if device == "cuda":
            fast = torch.cuda.is_bf16_supported(including_emulation=False)
            return ("bf16-mixed", "the GPU has bf16") if fast else ("32-true", "the GPU has no bf16")
        if device != "cpu":
            return "32-true", f"no other is tried on {device}"
        speedup = bf16_speedup(dim)
        chosen = "bf16-mixed" if speedup > _WORTH_IT else "32-true"
        return chosen, f"measured: bf16 runs a layer of this width {speedup:.1f}x as fast as fp32"
    if name in ("16-mixed", "16-true") and device == "cpu":
        instead = name.replace("16", "bf16")
        return instead, f"{asked} was asked for, but fp16 needs a GPU; on this CPU bf16 takes its place"
    if name == "16-mixed" and device == "mps":  # torch's asks for float64 before 2.8
        return "bf16-mixed", f"{asked} was asked for, but fp16's loss scale is not for {device}; bf16 is taken"
    return name, "as set"


def bf16_speedup(dim: int, repeats: int = 5) -> float:
    """Time of a forward and backward pass of an MLP of width `dim` in fp32 over that in autocast bf16.

    The fastest of several interleaved runs each, since whatever else the machine does only adds time.
    """
    with torch.random.fork_rng(devices=[]):  # draws nothing from the run's random numbers
        layer = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
    x = torch.ones(_PROBE_TOKENS, dim)
    times: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(repeats + 1):
        for bf16, measured in times.items():
            start = time.perf_counter()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                total = layer(x).sum()
            total.backward()
            measured.append(time.perf_counter() - start)
    return min(times[False][1:]) / min(times[True][1:])
