"""Floating-point operations of a run's step, as its task asks for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from slm.models.flops import token_flops
from slm.study.plan.planned import PlannedRun
from slm.training.lit_module import TARGETS
from slm.training.tasks.preferences.preference_task import PreferenceTask


@dataclass(frozen=True)
class StepFlops:
    """Floating-point operations of one device."""

    forward: float  # of a micro-batch
    training: float  # the same, forward and backward
    a_step: float  # of all micro-batches


def step_flops(run: PlannedRun, model: Any, batch: dict[str, Any]) -> StepFlops:
    """Of the run's optimizer step; `batch` is a micro-batch of it."""
    forward, training = batch_flops(run, model, batch)
    return StepFlops(forward, training, training * run.micro_batches)


def batch_flops(run: PlannedRun, model: Any, batch: dict[str, Any]) -> tuple[float, float]:
    """Of a forward pass over a batch, and of both passes."""
    tokens, length = batch["input_ids"].numel(), batch["input_ids"].shape[1]
    found = token_flops(model, length)
    # preferences ask for the tokens of the answers alone, and make their logits once more on the way back
    is_preference = isinstance(run.config.task, PreferenceTask)
    scored = batch[TARGETS] if is_preference else tokens
    again = found.head_forward * scored if is_preference else 0.0
    forward = found.blocks_forward * tokens + found.head_forward * scored
    return forward, found.of_training(tokens, scored, run.config.trainer.recompute) + again
