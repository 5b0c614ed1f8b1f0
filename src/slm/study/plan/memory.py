"""The memory of a run at its peak, by kind: of its own training step, made of tensors without numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from slm.models.kernels.library import without_kernels
from slm.models.modules.fused import rows_at_once_on_a_gpu
from slm.models.modules.lora import base_names, merged_state
from slm.study.plan.allocations import Allocations, Trace
from slm.study.plan.flops import StepFlops, step_flops
from slm.study.plan.heap import held_at_most, seeks_more
from slm.study.plan.planned import CPU, CUDA, PlannedRun, parameter_counts
from slm.study.plan.step import TrainingStep
from slm.training.process import MAPPED_FROM

WEIGHTS, GRADIENTS, OPTIMIZER = "weights", "gradients", "optimizer"
ACTIVATIONS, LOSS, BACKWARD, COPY, BATCH = "activations", "loss", "backward", "checkpoint_copy", "batch"
ALLOCATOR, PROCESS = "allocator", "process"
KINDS = (WEIGHTS, GRADIENTS, OPTIMIZER, ACTIVATIONS, LOSS, BACKWARD, BATCH, COPY, ALLOCATOR, PROCESS)

# Measured (benchmarks/plan_against_truth.py): what a run on a CPU takes above its start that is no tensor of a step:
# modules that are imported as it goes, pages of torch's code, the tokenizer, buffers of threads.
_PROCESS = {CPU: 80 * 10**6, CUDA: 600 * 10**6}  # of a GPU CUDA's context and cuBLAS's workspace: stated, not measured


@dataclass(frozen=True)
class State:
    """Bytes of what is saved."""

    checkpoint: int
    model: int  # the bundle


@dataclass(frozen=True)
class Memory:
    """Of one device, above what the process held at its start; and what else the step of no numbers tells."""

    peak: int  # bytes
    by_kind: dict[str, int]  # at the peak; they add up to it
    state: State
    parameters: Mapping[str, int]
    flops: StepFlops


class KnownPlaces(TorchDispatchMode):
    """The one operation whose result is as large as numbers say: where there are labels. They are known of the real
    batch."""

    def __init__(self, places: int) -> None:
        super().__init__()
        self.places = places

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.nonzero.default:
            return args[0].new_empty((min(self.places, args[0].numel()), args[0].dim()), dtype=torch.int64)
        return func(*args, **(kwargs or {}))


def memory_of(run: PlannedRun) -> Memory:
    """Two optimizer steps, a checkpoint and another step of the run's own module and optimizer, on its longest batch,
    for the run's device whether it is here or not."""
    windows = run.config.trainer.windows_at_once
    batch = run.longest_batch(windows)
    usual, allocations = run.usual_batch(windows), Allocations()
    with _without_numbers(run, allocations, places=int((batch["labels"] >= 0).sum())):
        module = run.module()
        allocations.count_as(WEIGHTS, *module.parameters(), *module.buffers())
        allocations.kind = BATCH
        step = TrainingStep(run, module, {name: _shape_of(value) for name, value in batch.items()}, CPU)
        _count_by_kind(step, allocations)
        state = _steps_and_a_checkpoint(run, step, allocations)
        by_kind = _on_a_gpu if run.device != CPU else _on_the_host
        found = by_kind(run, allocations.trace, step)
        ordered = {kind: found[kind] for kind in KINDS if found.get(kind)}
        counts = parameter_counts(module.model)
        return Memory(sum(ordered.values()), ordered, state, counts, step_flops(run, module.model, usual))


@contextmanager
def _without_numbers(run: PlannedRun, allocations: Allocations, places: int) -> Iterator[None]:
    # torch's CPU build cannot differentiate fake tensors of a GPU (it ends the process), so these stand on the CPU, and
    # the operations are those of a GPU: none of our kernels
    with ExitStack() as stack:
        if run.device != CPU:
            stack.enter_context(without_kernels())
        for mode in (FakeTensorMode(), allocations, KnownPlaces(places)):
            stack.enter_context(mode)
        yield


def _shape_of(value: Any) -> Any:
    return torch.empty(value.shape, dtype=value.dtype) if isinstance(value, Tensor) else value


def _count_by_kind(step: TrainingStep, allocations: Allocations) -> None:
    """Outside the model and ahead of the backward pass it is the loss that allocates."""

    def becomes(kind: str) -> Any:
        def hook(*_: Any) -> None:
            allocations.kind = kind

        return hook

    model = step.module.model
    model.register_forward_pre_hook(becomes(ACTIVATIONS))
    model.register_forward_hook(becomes(LOSS))
    for parameter in step.trained:
        parameter.register_hook(becomes(BACKWARD))
        parameter.register_post_accumulate_grad_hook(lambda p: allocations.count_as(GRADIENTS, p.grad))


def _steps_and_a_checkpoint(run: PlannedRun, step: TrainingStep, allocations: Allocations) -> State:
    """Two steps, a checkpoint, of which a thread writes copies while training goes on, and another step."""
    own, micro_batches = run.config.trainer, min(run.micro_batches, 2)
    for _ in range(2):
        step.make(micro_batches)
        allocations.count_as(OPTIMIZER, *step.optimizer_state)
    goes_on = own.steps > min(own.save_every, own.val_every, *own.save_points)
    if not goes_on:  # Lightning drops gradients ahead of the validation at the end
        step.optimizer.zero_grad()
    allocations.kind = COPY
    copied: list[Tensor] = []
    checkpoint, bundle = _saved(step)
    if own.async_save and run.device == CPU:
        both = {tensor.untyped_storage()._cdata: tensor for tensor in (*checkpoint, *bundle)}
        copied = [torch.empty_like(tensor) for tensor in both.values()]
        del both
    state = State(_bytes(checkpoint), _bytes(bundle))
    del checkpoint, bundle
    if goes_on:
        step.make(micro_batches)
    del copied
    return state


def _saved(step: TrainingStep) -> tuple[list[Tensor], list[Tensor]]:
    """What a checkpoint holds, and the bundle beside it, for which LoRA's products are added up."""
    model = step.module.model
    kept = base_names(model)
    own = [tensor for name, tensor in model.state_dict().items() if name not in kept]
    return [*own, *step.optimizer_state], list(merged_state(model).values())


def _bytes(tensors: Sequence[Tensor]) -> int:
    return sum({tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in tensors}.values())


def _on_the_host(run: PlannedRun, trace: Trace, step: TrainingStep) -> dict[str, int]:
    held = held_at_most(trace.events, MAPPED_FROM, seeks_more())
    return {**trace.at_peak, ALLOCATOR: max(0, held - trace.peak), PROCESS: _PROCESS[CPU]}


def _on_a_gpu(run: PlannedRun, trace: Trace, step: TrainingStep) -> dict[str, int]:
    model: Any = step.module.model
    by_kind = Counter({**trace.at_peak, PROCESS: _PROCESS[CUDA]})
    by_kind[LOSS] += _loss_room(run, model.head_weight, step.batch["input_ids"].numel())
    if run.n_devices > 1:  # DDP's buckets
        by_kind[GRADIENTS] += _bytes(step.trained)
    return by_kind


def _loss_room(run: PlannedRun, head: Tensor, rows: int) -> int:
    """Of the logits that the loss's kernel has at a time on a GPU; without it, as here, they are fewer."""
    row_bytes = head.shape[0] * run.dtype.itemsize
    return min(rows, rows_at_once_on_a_gpu(rows, row_bytes)) * row_bytes
