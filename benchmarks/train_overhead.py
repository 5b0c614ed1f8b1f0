"""The framework's cost: a training step of `slm-train` against a bare PyTorch loop.

The bare loop trains a copy of the same model on the same windows with the same precision, clipping,
optimizer and schedule. The two take turns, step by step, in one process, so that whatever else the
machine does hits both alike; medians are compared. All of slm's callbacks and loggers are on.

    python benchmarks/train_overhead.py [--steps 60] [overrides of slm-train …]
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import os
import platform
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

import slm
from slm.cli.composition import CONF, VERSION_BASE
from slm.cli.train import checked_run
from slm.data.batches.order import TrainBatches, window_at
from slm.data.batches.windows import WindowDataset
from slm.training import runner
from slm.training.optim.parameter_groups import parameter_groups

WARMUP_STEPS = 5


class BareLoop:
    """What one would write by hand, on a deep copy of the module's model."""

    def __init__(self, trainer: pl.Trainer, module: Any) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        self.module = module
        self.model = copy.deepcopy(module.model)
        self.optimizer = module.make_optimizer(parameter_groups(self.model, module.weight_decay))
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, module.lr_factor)
        self.dataset = WindowDataset(data.store.tokens("train"), data.seq_len)
        order = partial(window_at, n_windows=len(self.dataset), seed=data.seed)
        self.batches = iter(TrainBatches(order, 0, data.batch_size, rank=0, world_size=1))
        self.accumulate = trainer.accumulate_grad_batches
        self.bf16 = trainer.precision == "bf16-mixed"
        self.device = module.device

    def step(self) -> float:
        """One optimizer step; seconds."""
        start = time.perf_counter()
        for _ in range(self.accumulate):
            batch = {k: v.to(self.device) for k, v in self.dataset.__getitems__(next(self.batches)).items()}
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
                hidden = self.model.hidden_states(batch["input_ids"])
                nll = self.module.loss(hidden, self.model.head_weight, batch["labels"], self.model.config.vocab_size)
            (nll / (batch["labels"].numel() * self.accumulate)).backward()
        if self.module.grad_clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.module.grad_clip)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        synchronize(self.device)
        return time.perf_counter() - start


class Interleaved(pl.Callback):
    """Times each step of the Trainer from the end of one turn of the bare loop to the next."""

    def __init__(self) -> None:
        self.framework: list[float] = []
        self.bare: list[float] = []
        self.waited_s = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make the twin."""
        self.loop = BareLoop(trainer, pl_module)
        self.step = trainer.global_step
        self.resumed_at = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """A finished optimizer step: note its time, then let the bare loop take its turn."""
        if trainer.global_step == self.step:
            return
        self.step = trainer.global_step
        synchronize(pl_module.device)
        self.framework.append(time.perf_counter() - self.resumed_at)
        self.bare.append(self.loop.step())
        self.waited_s = trainer.datamodule.waited_s  # type: ignore[attr-defined]
        self.resumed_at = time.perf_counter()


def synchronize(device: torch.device) -> None:
    """Wait for the device, if it works on its own."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    """Run, print the table, end with one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    arguments, overrides = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        fixed = [
            f"run_dir={folder}/run",
            f"trainer.max_steps={arguments.steps + WARMUP_STEPS}",
            "trainer.limit_val_batches=1",
        ]
        with initialize_config_module(CONF, **VERSION_BASE):
            composed: Any = OmegaConf.to_container(compose("train", [*fixed, *overrides]), resolve=True)
        config = checked_run(composed)
        turns = Interleaved()
        with Path(os.devnull).open("w") as sink, contextlib.redirect_stderr(sink):
            runner.train(config, composed, overrides, more_callbacks=[turns])
    framework, bare = turns.framework[WARMUP_STEPS:], turns.bare[WARMUP_STEPS:]
    pairs = [a / b for a, b in zip(framework, bare, strict=True)]
    figures = {
        "benchmark": "train_overhead",
        "steps": len(framework),
        "slm_step_ms": 1000 * statistics.median(framework),
        "bare_step_ms": 1000 * statistics.median(bare),
        "ratio_of_medians": statistics.median(framework) / statistics.median(bare),
        "median_of_ratios": statistics.median(pairs),
        "data_wait_percent": 100 * turns.waited_s / sum(turns.framework),
    }
    print(f"slm {slm.__version__}, torch {torch.__version__}, pytorch-lightning {pl.__version__}")
    print(f"{platform.platform()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, {device_name()}")
    print(OmegaConf.to_yaml(OmegaConf.create({k: composed[k] for k in ("model", "data", "optimizer", "trainer")})))
    for name, value in figures.items():
        print(f"{name:<20}{value if not isinstance(value, float) else round(value, 4)}")
    print(json.dumps(figures))


def device_name() -> str:
    """The accelerator, or that there is none."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"


if __name__ == "__main__":
    main()
