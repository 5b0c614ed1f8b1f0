"""A run as it would begin: its settings with what `auto` comes to, its data, its batches; nothing is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from slm.data.batches.pairs import PairDataset
from slm.data.batches.samples import SampleWindows
from slm.data.batches.windows import Windows
from slm.errors import UserError
from slm.models.config import ModelConfig
from slm.models.contract import build_model
from slm.notices import notice
from slm.training.first_model import add_adapter, fit_vocabulary, recompute_blocks
from slm.training.lit_module import TARGETS, LanguageModelModule
from slm.training.parts import devices_of, optimizer_factory, settled_factory
from slm.training.plan import resolve_precision, with_batches, with_steps
from slm.training.process import quiet_trainer
from slm.training.run_config import RunConfig
from slm.training.tasks.task import TaskData

CPU, CUDA = "cpu", "cuda"
_DTYPES = {"bf16": torch.bfloat16, "16": torch.float16, "32": torch.float32, "64": torch.float64}


@dataclass(frozen=True)
class PlannedRun:
    """What `slm-train` would train with the same settings."""

    config: RunConfig  # steps and batches are numbers
    data: TaskData
    model: ModelConfig  # with rows for every token
    device: str  # its kind
    n_devices: int
    precision: str  # Lightning's name of it
    make_optimizer: partial[Optimizer]

    @property
    def is_here(self) -> bool:
        """Whether this machine has the device."""
        return self.device == CPU or (self.device == CUDA and torch.cuda.is_available())

    @property
    def micro_batches(self) -> int:
        """That a device takes in one optimizer step."""
        return self.config.trainer.accumulation(self.n_devices)

    @property
    def windows_a_step(self) -> int:
        """Over all devices."""
        return self.config.trainer.windows_at_once * self.micro_batches * self.n_devices

    @property
    def dtype(self) -> torch.dtype:
        """That the blocks compute in."""
        return _DTYPES[self.precision.partition("-")[0]]

    @property
    def autocasts(self) -> bool:
        return self.precision.endswith("-mixed")

    def with_batch(self, windows: int, **trainer: Any) -> PlannedRun:
        """The same optimizer step, `windows` at once; `trainer` are settings that change beside."""
        own = replace(self.config.trainer, batch_size=windows, global_batch_size=self.windows_a_step, **trainer)
        return replace(self, config=replace(self.config, trainer=own))

    def at(self, precision: str) -> PlannedRun:
        """The same in another precision, in Lightning's name."""
        return replace(self, precision=precision)

    def module(self) -> LanguageModelModule:
        """What is trained, with weights of the right shapes on torch's default device, or under its `FakeTensorMode`
        with none: numbers do not matter here."""
        with _default_dtype(torch.float32 if self.autocasts else self.dtype):
            model = build_model(self.model)
            add_adapter(self.config, model)
        if self.config.trainer.recompute:
            recompute_blocks(model)
        module = (self.data.make_module or LanguageModelModule)(
            model,
            make_optimizer=self.make_optimizer,
            weight_decay=float(self.config.optimizer.get("weight_decay", 0.0)),
            grad_clip=self.config.trainer.grad_clip,
        )
        module.trainer = quiet_trainer(CPU)  # a loss may ask how many ranks there are
        return module

    def batch(self, windows: int) -> dict[str, Any]:
        """So many windows of the training data at once, the longest among them: what memory must hold once an epoch."""
        part = self.data.datamodule.parts("train")[0]
        longest = _longest(part)
        others = (window for window in range(len(part)) if window != longest)
        found = part.__getitems__([longest, *(next(others, longest) for _ in range(windows - 1))])
        batch: dict[str, Any] = {name: value for name, value in found.items() if isinstance(value, Tensor)}
        if isinstance(part, PairDataset) or "is_desirable" in batch:
            batch.setdefault("reference", torch.zeros(len(batch["input_ids"])))
        labels = batch["labels"]
        return {**batch, TARGETS: int((labels >= 0).sum())}


def planned_run(config: RunConfig, device: str | None = None) -> PlannedRun:
    """Read the data (prepared and kept as a run would, told), and settle what is open; `UserError` as for a run. The
    `device` is "cpu" or "cuda", here or not; None for the one that a run would take."""
    if config.resume is not None:
        raise UserError(f"resume={config.resume}: slm-plan says what a whole run costs; leave resume out")
    make_optimizer = optimizer_factory(config.optimizer, config.adapter is not None)
    kind, n_devices = _devices(config, device)
    config = with_batches(config, kind, n_devices)
    config.trainer.accumulation(n_devices)
    data = config.task.data(config.task_inputs())
    notice(data.said)
    config = with_steps(config, data.datamodule, n_devices)
    model = fit_vocabulary(config, data.tokenizer, resumed=False)
    precision = _precision(config, kind, model.modules.transformer.dim)
    make_optimizer = settled_factory(make_optimizer, config.optimizer, precision)
    return PlannedRun(config, data, model, kind, n_devices, precision, make_optimizer)


def _devices(config: RunConfig, device: str | None) -> tuple[str, int]:
    if device is None:
        return devices_of(config.trainer.lightning)
    asked = config.trainer.lightning.get("devices")
    nodes = int(config.trainer.lightning.get("num_nodes", 1))
    return device, nodes * (asked if isinstance(asked, int) and asked > 0 else 1)


def _precision(config: RunConfig, device: str, width: int) -> str:
    asked = str(config.trainer.precision)
    if device == CUDA and asked == "auto" and not torch.cuda.is_available():
        return "bf16-mixed"  # what auto takes on every GPU since 2020
    return resolve_precision(asked, device, width)[0]


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _longest(part: Windows) -> int:
    """The window with the most positions; of windows that are all alike the first."""
    if isinstance(part, PairDataset):
        return int(part.lengths.argmax())
    if isinstance(part, SampleWindows) and not part.is_packed:
        return int(part.samples.lengths.argmax())
    return 0


def parameter_counts(model: nn.Module) -> Mapping[str, int]:
    """``total``, ``trained`` and those of tables of tokens and positions, ``embedding``; shared ones count once."""
    tables: dict[int, int] = {}
    for name, child in model.named_children():
        if "embedding" in name:
            tables |= {id(p): p.numel() for p in child.parameters()}
    every = list(model.parameters())
    return {
        "total": sum(p.numel() for p in every),
        "trained": sum(p.numel() for p in every if p.requires_grad),
        "embedding": sum(tables.values()),
    }
