"""How long a step takes: timed on the device where that is here, else from its operations and a stated rate."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import slm
from slm.errors import UserError
from slm.files.cache import cache_folder
from slm.files.reading import read_json_object
from slm.files.writing import new_file
from slm.models.kernels.waiting import heed_others
from slm.study.plan.flops import StepFlops, batch_flops
from slm.study.plan.planned import CUDA, PlannedRun
from slm.study.plan.step import TrainingStep
from slm.training.lit_module import TARGETS
from slm.training.process import keep_freed_memory
from slm.training.tasks.pretrain import Pretrain

TIMED_STEPS = 3
_SHORTEST = 64  # tokens of a piece
# Where a device is not here: 40 % of what an A100's data sheet says of bf16, what well-kept trainings reach there
STATED_RATE = 0.4 * 312e12


@dataclass(frozen=True)
class Timing:
    """Seconds of one device."""

    micro_batch: float
    update: float  # clipping and the optimizer
    flops_per_s: float
    how: str  # for people
    measured: bool

    def of_step(self, micro_batches: int) -> float:
        return micro_batches * self.micro_batch + self.update


def timed(run: PlannedRun, batch: dict[str, Any], limit_s: float) -> Timing:
    """Three real micro-batches and updates on the device, which is here, of weights that were just drawn. What does not
    fit into `limit_s` is timed on fewer windows, or shorter ones, and scaled by its operations."""
    kept = _place(run, batch)
    if (found := _kept(kept)) is not None:
        return found
    keep_freed_memory()  # as a run does, and its threads heed other programs
    heed_others()
    torch.manual_seed(run.config.seed)
    with torch.device(run.device):
        module = run.module()
    found = _measure(run, module, batch, limit_s)
    kept.parent.mkdir(parents=True, exist_ok=True)
    with new_file(kept) as out:
        out.write(json.dumps(asdict(found)).encode())
    return found


def stated(flops: StepFlops, rate: float, why: str) -> Timing:
    """From a rate in operations a second."""
    return Timing(flops.training / rate, 0.0, rate, f"{why} of {rate:.3g} FLOP/s; not measured", measured=False)


def _measure(run: PlannedRun, module: Any, batch: dict[str, Any], limit_s: float) -> Timing:
    def flops(one: dict[str, Any]) -> float:
        return batch_flops(run, module.model, one)[1]

    until = time.perf_counter() + limit_s
    chosen = _slice(run, batch, 1, min(_SHORTEST, batch["input_ids"].shape[1]))
    step = TrainingStep(run, module, _on(chosen, run.device), run.device)
    while True:  # small pieces are slow for their size, so what fits is found in a few goes
        seconds_of(step.micro_step, run.device)  # kernels, threads and memory are made ready
        seconds = [seconds_of(step.micro_step, run.device)]
        larger = _largest_within(run, module.model, batch, flops(chosen) / seconds[0] * limit_s / (TIMED_STEPS + 2))
        if flops(larger) <= flops(chosen) or time.perf_counter() > until:
            break
        chosen, step.batch = larger, _on(larger, run.device)
    while len(seconds) < TIMED_STEPS and time.perf_counter() < until + limit_s:
        seconds.append(seconds_of(step.micro_step, run.device))
    update = seconds_of(step.update, run.device)  # makes the optimizer's state, too
    if update < limit_s / 2:
        update = min(seconds_of(step.update, run.device) for _ in range(2))
    rate = flops(chosen) / statistics.median(seconds)
    return Timing(flops(batch) / rate, update, rate, _in_words(len(seconds), chosen, batch), measured=True)


def seconds_of(work: Callable[[], object], device: str) -> float:
    """Of `work`, until the device is done with it."""
    start = time.perf_counter()
    work()
    if device == CUDA:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _in_words(n: int, chosen: dict[str, Any], batch: dict[str, Any]) -> str:
    steps = f"{n} timed step{'s' if n > 1 else ''}"
    rows, length = chosen["input_ids"].shape
    whole = chosen["input_ids"].shape == batch["input_ids"].shape
    return steps if whole else f"{steps} of {rows} x {length} tokens, scaled by their operations"


def _largest_within(run: PlannedRun, model: Any, batch: dict[str, Any], flops: float) -> dict[str, Any]:
    """The whole batch, else as many windows, else as long a piece of one, as come to at most these operations."""
    windows = run.config.trainer.windows_at_once
    length = batch["input_ids"].shape[1]
    for n in (windows, *(2**k for k in reversed(range(windows.bit_length())) if 2**k < windows)):
        found = _slice(run, batch, n, length)
        if batch_flops(run, model, found)[1] <= flops:
            return found
    while length > _SHORTEST and batch_flops(run, model, _slice(run, batch, 1, length))[1] > flops:
        length //= 2
    return _slice(run, batch, 1, length)


def _slice(run: PlannedRun, batch: dict[str, Any], windows: int, length: int) -> dict[str, Any]:
    """So many windows of the batch, of running text their first `length` tokens."""
    if windows == run.config.trainer.windows_at_once and length >= batch["input_ids"].shape[1]:
        return batch
    found = run.usual_batch(windows)
    if isinstance(run.config.task, Pretrain):
        cut = {name: found[name][:, :length] for name in ("input_ids", "labels")}
        return {**cut, TARGETS: int((cut["labels"] >= 0).sum())}
    return found


def _on(batch: dict[str, Any], device: str) -> dict[str, Any]:
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}


# ---- kept per machine ----


def _kept(place: Path) -> Timing | None:
    if not place.is_file():
        return None
    try:
        content = read_json_object(place)
        return replace(Timing(**content), how=f"{content['how']}, kept from before")
    except (UserError, TypeError, KeyError):
        return None  # of another version: timed anew


def _place(run: PlannedRun, batch: dict[str, Any]) -> Path:
    """Another file for another machine, or for whatever a step's time depends on."""
    own = run.config.trainer
    says = {
        "machine": [platform.node(), platform.machine(), os.cpu_count(), torch.get_num_threads(), torch.__version__],
        "gpu": torch.cuda.get_device_name() if run.device == CUDA else None,
        "slm": [slm.__version__, os.environ.get("SLM_NATIVE")],
        "model": run.model.to_dict(),
        "adapter": None if run.config.adapter is None else asdict(run.config.adapter),
        "task": type(run.config.task).__name__,
        "batch": {name: list(value.shape) for name, value in batch.items() if isinstance(value, Tensor)},
        "run": [run.precision, run.config.optimizer["_target_"], own.recompute, own.grad_clip],
    }
    key = hashlib.sha256(json.dumps(says, sort_keys=True).encode()).hexdigest()[:24]
    return cache_folder("timings") / f"{key}.json"
