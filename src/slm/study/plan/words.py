"""A plan in words, as a table."""

from __future__ import annotations

from slm.study.plan.budget import BATCH_RULE, SIZE_RULE
from slm.study.plan.fit import Fit
from slm.study.plan.plan import Bought, Plan
from slm.study.plan.planned import CPU

_KINDS = {
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "the optimizer's state",
    "activations": "activations, kept for the way back",
    "loss": "the loss: logits of a chunk, gradient of the head",
    "backward": "gradients on their way, what is made again",
    "batch": "the batch",
    "checkpoint_copy": "copy that a thread writes (trainer.async_save)",
    "allocator": "holes between blocks",
    "process": "the process: modules, torch's own buffers",
}


def in_words(plan: Plan) -> str:
    """A line or a few for each thing that a run costs."""
    lines = [*_run(plan), *_memory(plan), *_disk(plan), *_time(plan)]
    if plan.fit is not None:
        lines += _fit(plan.fit)
    if plan.bought is not None:
        lines += _bought(plan.bought)
    return "\n".join(lines)


def _run(plan: Plan) -> list[str]:
    run, counts, trainer = plan.run, plan.memory.parameters, plan.run.config.trainer
    at_once = f"{trainer.windows_at_once} windows at once"
    more = f" x {run.micro_batches} accumulated" if run.micro_batches > 1 else ""
    more += f" x {run.n_devices} devices" if run.n_devices > 1 else ""
    return [
        _line("parameters", f"{counts['total']:,}, {counts['trained']:,} trained, {counts['embedding']:,} embedding"),
        _line("steps", f"{trainer.steps:,} of {plan.tokens_a_step:,} tokens ({at_once}{more})"),
        _line("tokens", f"{plan.tokens_a_step * trainer.steps:,}, {plan.passes:.3g} passes over the data"),
        _line("operations", f"{plan.memory.flops.a_step * run.n_devices:.3g} FLOPs a step, {plan.flops:.3g} in all"),
    ]


def _memory(plan: Plan) -> list[str]:
    run, memory = plan.run, plan.memory
    where = f"a device, {run.device}" if run.n_devices > 1 else run.device
    unsure = "" if run.device == CPU else "; a figure that nobody has verified on such a device"
    said = f"{size(memory.peak)} at its peak, above the start ({where}, {run.precision}{unsure})"
    rows = [f"    {size(held):>9}  {_KINDS[kind]}" for kind, held in memory.by_kind.items() if held >= 50_000]
    return [_line("memory", said), *rows]


def _disk(plan: Plan) -> list[str]:
    disk, rows = plan.disk, []
    if disk.token_store:
        rows.append(f"    {size(disk.token_store):>9}  token store, shared by all runs on this data")
    rows.append(f"    {size(disk.checkpoints):>9}  checkpoints of {size(disk.checkpoint)}, at most at a time")
    rows.append(f"    {size(disk.model):>9}  the model")
    return [_line("disk", size(disk.total)), *rows]


def _time(plan: Plan) -> list[str]:
    steps = f"{_duration(plan.step_seconds)} a step ({plan.timing.how})"
    vals = f"{plan.validations} validations of {_duration(plan.val_seconds)}"
    return [_line("time", f"{_duration(plan.seconds)}: {steps}; {vals}")]


def _fit(fit: Fit) -> list[str]:
    if fit.memory is None:
        said = f"nothing fits into {size(fit.room)}: not one window with recompute and bf16; take a smaller model"
        return [_line("fit", said)]
    return [_line("fit", f"{size(fit.memory.peak)} of {size(fit.room)}: {' '.join(fit.settings)}")]


def _bought(bought: Bought) -> list[str]:
    amount = _duration(bought.budget.amount) if bought.budget.unit == "s" else f"{bought.flops:.3g} FLOPs"
    comes_to = f" ({bought.flops:.3g} FLOPs)" if bought.budget.unit == "s" else ""
    lines = [_line("budget", f"{amount}{comes_to}: {bought.steps:,} steps as set, {bought.tokens:,.0f} tokens")]
    if (best := bought.best) is not None:
        told = f"{best.parameters:,} parameters on {best.tokens:,.0f} tokens in {best.steps:,} steps"
        lines += [f"    best       {told}", f"    settings   {' '.join(best.settings)}"]
        lines += [f"    size by    {SIZE_RULE}", f"    batch by   {BATCH_RULE}"]
    return lines


def _line(name: str, said: str) -> str:
    return f"  {name:<11}{said}"


def size(n_bytes: float) -> str:
    """In powers of 1,000, as disks and `free --si` have it."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= factor:
            return f"{n_bytes / factor:.2f} {unit}" if unit != "MB" else f"{n_bytes / factor:.0f} MB"
    return f"{n_bytes / 1e3:.0f} kB"


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{minutes:.1f} min" if minutes < 120 else f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"
