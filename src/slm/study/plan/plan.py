"""What a run costs before it starts: parameters, operations, memory, disk, time; what fits, what a budget buys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slm.study.plan.budget import Budget
from slm.study.plan.disk import Disk, disk_of
from slm.study.plan.fit import Fit, fitted
from slm.study.plan.memory import Memory, memory_of
from slm.study.plan.planned import PlannedRun
from slm.study.plan.proposal import Proposal, proposal_for
from slm.study.plan.timing import STATED_RATE, Timing, stated, timed


@dataclass(frozen=True)
class PlanSettings:
    """What is asked beside the run's own settings."""

    fit: int | None  # bytes
    budget: Budget | None
    rate: float | None  # FLOP/s of a device; None to measure, or for the stated one
    timing_s: float  # of timed steps, about; 0 for none


@dataclass(frozen=True)
class Bought:
    """What a budget is spent on."""

    budget: Budget
    flops: float  # that it comes to
    steps: int  # of the run as it is set
    tokens: float  # that these read
    best: Proposal | None  # None for weights that exist: their size is theirs


@dataclass(frozen=True)
class Plan:
    """All of it; what is of a device is of one of `n_devices`."""

    run: PlannedRun
    memory: Memory
    timing: Timing
    disk: Disk
    tokens_a_step: int
    windows: Mapping[str, int]  # of the training and the validation data
    val_seconds: float  # of one validation
    fit: Fit | None
    bought: Bought | None

    @property
    def step_seconds(self) -> float:
        return self.timing.of_step(self.run.micro_batches)

    @property
    def validations(self) -> int:
        trainer = self.run.config.trainer
        if trainer.lightning.get("limit_val_batches") == 0:
            return 0
        return trainer.steps // trainer.val_every + (1 if trainer.steps % trainer.val_every else 0)

    @property
    def seconds(self) -> float:
        """Of all steps and validations."""
        return self.run.config.trainer.steps * self.step_seconds + self.validations * self.val_seconds

    @property
    def flops(self) -> float:
        """Of all steps, on all devices."""
        return self.memory.flops.a_step * self.run.config.trainer.steps * self.run.n_devices

    @property
    def passes(self) -> float:
        """Over the training data."""
        return self.run.config.trainer.steps * self.run.windows_a_step / max(1, self.windows["train"])


def plan_of(run: PlannedRun, settings: PlanSettings) -> Plan:
    """`run` as it is set, and what `settings` ask beside."""
    memory = memory_of(run)
    timing = _timing(run, memory, settings)
    data, trainer = run.data.datamodule, run.config.trainer
    windows = {split: sum(len(part) for part in data.parts(split)) for split in ("train", "val")}
    batch = run.usual_batch(trainer.windows_at_once)
    forward = timing.micro_batch * memory.flops.forward / memory.flops.training
    val_seconds = _val_batches(run, windows["val"]) * forward
    hours = trainer.steps * timing.of_step(run.micro_batches) / 3600
    return Plan(
        run,
        memory,
        timing,
        disk_of(data, run.config, memory.state.checkpoint, memory.state.model, hours),
        batch["input_ids"].numel() * run.micro_batches * run.n_devices,
        windows,
        val_seconds,
        None if settings.fit is None else fitted(run, settings.fit, memory_of),
        None if settings.budget is None else _bought(run, memory, timing, settings.budget),
    )


def _timing(run: PlannedRun, memory: Memory, settings: PlanSettings) -> Timing:
    if settings.rate is not None:
        return stated(memory.flops, settings.rate, "the given rate")
    if run.is_here and settings.timing_s:
        return timed(run, run.usual_batch(run.config.trainer.windows_at_once), settings.timing_s)
    why = "an A100's usual rate in bf16" if not run.is_here else "no step is timed: an A100's usual rate in bf16"
    return stated(memory.flops, STATED_RATE, why)


def _val_batches(run: PlannedRun, windows: int) -> float:
    batches = -(-windows // (run.config.trainer.windows_at_once * run.n_devices))
    limit = run.config.trainer.lightning.get("limit_val_batches")
    if limit is None:
        return batches
    return min(batches, limit) if limit >= 1 and isinstance(limit, int) else int(batches * limit)


def _bought(run: PlannedRun, memory: Memory, timing: Timing, budget: Budget) -> Bought:
    flops = budget.flops(timing.flops_per_s * run.n_devices)
    a_step = memory.flops.a_step * run.n_devices
    steps = int(budget.amount / timing.of_step(run.micro_batches)) if budget.unit == "s" else int(flops / a_step)
    tokens = float(steps * run.windows_a_step * run.config.data.seq_len)
    best = proposal_for(run, flops) if run.config.fine_tuning is None else None
    return Bought(budget, flops, steps, tokens, best)


def plain(plan: Plan) -> dict[str, Any]:
    """For a program; docs/json.md says what each field is."""
    run, memory, trainer = plan.run, plan.memory, plan.run.config.trainer
    return {
        "device": {"kind": run.device, "count": run.n_devices, "here": run.is_here, "precision": run.precision},
        "parameters": dict(memory.parameters),
        "steps": trainer.steps,
        "batch": {
            "windows_at_once": trainer.windows_at_once,
            "accumulated": run.micro_batches,
            "windows_a_step": run.windows_a_step,
            "tokens_a_step": plan.tokens_a_step,
        },
        "tokens": plan.tokens_a_step * trainer.steps,
        "passes": plan.passes,
        "flops": {"a_step": memory.flops.a_step * run.n_devices, "total": plan.flops},
        "memory": {"peak": memory.peak, "by_kind": dict(memory.by_kind), "verified": run.device == "cpu"},
        "disk": {
            "token_store": plan.disk.token_store,
            "checkpoint": plan.disk.checkpoint,
            "checkpoints": plan.disk.checkpoints,
            "model": plan.disk.model,
        },
        "time": {
            "step_s": plan.step_seconds,
            "total_s": plan.seconds,
            "validations": plan.validations,
            "validation_s": plan.val_seconds,
            "measured": plan.timing.measured,
            "how": plan.timing.how,
        },
        "fit": _plain_fit(plan.fit),
        "budget": _plain_budget(plan.bought),
    }


def _plain_fit(fit: Fit | None) -> dict[str, Any] | None:
    if fit is None:
        return None
    return {"room": fit.room, "settings": list(fit.settings), "peak": fit.memory and fit.memory.peak}


def _plain_budget(bought: Bought | None) -> dict[str, Any] | None:
    if bought is None:
        return None
    best = bought.best
    proposed = best and {
        "parameters": best.parameters,
        "tokens": best.tokens,
        "steps": best.steps,
        "settings": list(best.settings),
    }
    return {"flops": bought.flops, "steps": bought.steps, "tokens": bought.tokens, "best": proposed}
