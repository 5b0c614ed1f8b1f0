"""What a run's settings come to that follow from its data and device: steps, batches, rates, precision."""

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import reduce
from math import ceil
from typing import Any

import torch
from torch import nn

from slm.data.batches.datamodule import WindowDataModule
from slm.data.batches.order import EvalBatches
from slm.data.batches.words import WordsSeen
from slm.errors import UserError, first_few
from slm.masking import masked
from slm.models.config import ModelConfig
from slm.notices import notice
from slm.training.config import AUTO, SCHEDULES, SHORT_NAMES
from slm.training.optim.config import with_warmup_steps
from slm.training.optim.schedules import Schedule, describe_schedule
from slm.training.run_config import RunConfig
from slm.training.save_points import in_short

_WORTH_IT = 1.1  # bf16 must be this much faster than fp32 to be chosen
_PROBE_TOKENS = 1024
_FIRST_LOOK_TOKENS, _HOPELESS = 16, 0.5
_AT_ONCE_ON_CPU = 1024  # tokens of fine-tuning: 8 windows of 1,024 of a model of 135 M take 11 GB


def with_batches(config: RunConfig, device: str, n_devices: int) -> RunConfig:
    """`config` with ``trainer.batch_size=auto`` made a number: what an optimizer step has of windows a device, in
    fine-tuning on a CPU only so many at once as hold 1,024 tokens (the step is the same, but for rounding)."""
    own = config.trainer
    if own.batch_size != AUTO:
        return config
    whole = own.global_batch_size or own.windows_at_once * n_devices
    most = own.windows_at_once
    if config.fine_tuning is not None and device == "cpu":
        most = min(most, max(1, _AT_ONCE_ON_CPU // (config.data.seq_len * config.task.rows_a_sample)))
    at_once = max(size for size in range(1, most + 1) if whole % (size * n_devices) == 0 or size == 1)
    return replace(config, trainer=replace(own, batch_size=at_once, global_batch_size=whole))


def with_steps(config: RunConfig, data: WindowDataModule, n_devices: int) -> RunConfig:
    """`config` with ``trainer.max_epochs`` made steps, and with steps of the optimizer's own warmup."""
    own = config.trainer
    per_step = own.windows_at_once * own.accumulation(n_devices) * n_devices
    windows = sum(len(part) for part in data.parts("train"))
    if own.max_epochs is not None:
        own = replace(own, max_steps=_steps_of_passes(own.max_epochs, windows, per_step), max_epochs=None)
    if own.most_passes is not None and own.steps > _steps_of_passes(own.most_passes, windows, per_step):
        raise UserError(
            f"trainer.max_steps: {own.steps:,} steps are {own.steps * per_step / windows:.4g} passes over the data, "
            f"more than trainer.most_passes={own.most_passes:g} (the BabyLM challenge allows ten); "
            f"set trainer.max_epochs={own.most_passes:g} or fewer"
        )
    return replace(config, trainer=own, optimizer=with_warmup_steps(config.optimizer, own.steps))


def _steps_of_passes(passes: float, windows: int, per_step: int) -> int:
    return max(1, ceil(round(passes * windows / per_step, 6)))  # 0.7 x 10 is not 8


def check_validation(data: WindowDataModule, limit: float | None, n_devices: int) -> None:
    """Raise `UserError` if ``limit_val_batches`` is so small a share that it leaves no batch of a part."""
    for part in data.parts("val"):
        batches = len(EvalBatches(len(part), data.batch_size, n_devices - 1, n_devices))
        if limit is not None and 0 < limit < 1 and batches * limit < 1:
            raise UserError(
                f"trainer.limit_val_batches={limit} of {batches} batches is less than one; give a number of batches, "
                f"or a share of at least {ceil(1000 / batches) / 1000 if batches else 1}"
            )


def resolved(
    config: RunConfig, composed: Mapping[str, Any], precision: str, model: ModelConfig, schedule: Schedule
) -> dict[str, Any]:
    """Dotted setting -> what it came to, of those that `composed` leaves open or gives as a share."""
    numbers = {
        **{f"optimizer.{name}": value for name, value in config.optimizer.items()},
        "data.seq_len": config.data.seq_len,
        "trainer.max_steps": config.trainer.steps,
        "trainer.batch_size": config.trainer.batch_size,
        "trainer.global_batch_size": config.trainer.global_batch_size,
        "model.params.vocab_size": model.params.vocab_size,
        "model.params.max_seq_len": model.params.max_seq_len,
    }
    if "warmup_steps" in SCHEDULES[config.scheduler.name]:
        numbers["scheduler.warmup_steps"] = schedule.warmup
    if str(config.trainer.precision) == AUTO:
        numbers["trainer.precision"] = precision
    return {key: value for key, value in numbers.items() if _at(composed, key) != value}


def settings_for_loggers(composed: Mapping[str, Any], numbers: Mapping[str, Any], model: ModelConfig) -> dict[str, Any]:
    """``config.yaml``'s settings, as masked as they are there, with `numbers` in their places and the whole shape."""
    settings: dict[str, Any] = masked(composed)
    settings["model"] = {**settings["model"], **model.to_dict()}
    for key, value in numbers.items():
        *groups, name = key.split(".")
        reduce(lambda node, group: node.setdefault(group, {}), groups, settings)[name] = value
    return settings


def describe_plan(
    config: RunConfig, composed: Mapping[str, Any], data: WindowDataModule, n_devices: int, schedule: Schedule
) -> str:
    """For the person at the terminal: steps and passes over the data, then rates and schedule."""
    own, noun = config.trainer, data.noun
    per_step = own.windows_at_once * own.accumulation(n_devices) * n_devices
    sizes = [len(part) for part in data.parts("train")]
    names = [f"{size:,} {noun}{f' of {name}' if name else ''}" for size, name in zip(sizes, data.shares, strict=True)]
    passes = [share * own.steps * per_step / size for share, size in zip(data.shares.values(), sizes, strict=True)]
    told = ", ".join(f"{count:.3g} over {name}" for count, name in zip(passes, names, strict=True))
    pieces = f", {own.windows_at_once} at once" if per_step > own.windows_at_once * n_devices else ""
    rates = [
        f"{name} {config.optimizer[name]:.3g}{' (auto)' if composed['optimizer'].get(name) == AUTO else ''}"
        for name in ("lr", "adam_lr")
        if name in config.optimizer
    ]
    return (
        f"steps {own.steps:,} of {per_step} {noun}{pieces}; passes: {told}\n"
        f"learning rates {', '.join(rates)}; {describe_schedule(schedule)}"
    )


def describe_words(config: RunConfig, words: WordsSeen, n_devices: int) -> str:
    """Words of the data and of the run, and at which of them its state is kept."""
    own, points = config.trainer, config.trainer.word_points
    total = words.at(own.steps * own.windows_at_once * own.accumulation(n_devices) * n_devices)
    kept = points.reached(0, total, is_end=True) if points else []
    places = first_few([in_short(point) for point in kept], most=30) or "none"
    return f"words (by white space) {words.in_a_pass:,} a pass, {total:,} in all; kept is the state at {places}"


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

    The fastest of several interleaved runs each, since whatever else the machine does only adds time. A processor
    without bf16 takes up to thirty times as long with it: a few tokens show that in place of minutes.
    """
    with torch.random.fork_rng(devices=[]):  # draws nothing from the run's random numbers
        layer = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
    at_once = _speedup(layer, torch.ones(_FIRST_LOOK_TOKENS, dim), 1)
    return at_once if at_once < _HOPELESS else _speedup(layer, torch.ones(_PROBE_TOKENS, dim), repeats)


def _speedup(layer: nn.Module, x: torch.Tensor, repeats: int) -> float:
    times: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(repeats + 1):
        for bf16, measured in times.items():
            start = time.perf_counter()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                total = layer(x).sum()
            total.backward()
            measured.append(time.perf_counter() - start)
    return min(times[False][1:]) / min(times[True][1:])


def say_batch(windows: int, devices: int, record: Mapping[str, Any]) -> None:
    """Without ``trainer.global_batch_size`` more devices make larger steps, of more `windows`: say so; `record` is
    ``run.json`` of a run that is gone on with, {} of a new one."""
    sessions = record.get("sessions") or [{}]
    before = sessions[-1].get("global_batch_size", windows)
    if before != windows:
        keep = f"trainer.global_batch_size={before} keeps that"
        notice(f"a step takes {windows} windows from here on, {before} until now; {keep}")
    elif devices > 1:
        notice(f"a step takes {windows} windows, over {devices} devices (trainer.global_batch_size sets how many)")


def _at(values: Any, key: str) -> Any:
    return reduce(lambda node, part: node.get(part) if isinstance(node, Mapping) else None, key.split("."), values)
