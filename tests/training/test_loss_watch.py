"""A jump of the loss is said and its samples are written down; ordinary noise is not one."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from slm.training.figures import StepFigures
from slm.training.lit_module import LanguageModelModule
from slm.training.watch.loss_watch import LossWatch


def watch(folder: Path, losses: list[float], **settings: Any) -> list[int]:
    """The steps that are written down."""
    data = SimpleNamespace(samples_at=lambda start, end: list(range(start, end)))
    trainer: Any = SimpleNamespace(is_global_zero=True, default_root_dir=folder, datamodule=data, global_step=0)
    module = LanguageModelModule.__new__(LanguageModelModule)
    callback = LossWatch(**settings)
    callback.on_train_start(trainer, module)
    for step, loss in enumerate(losses, 1):
        module.__dict__["settled"] = [StepFigures(step, (step, step + 2), 2 * loss, 2, 2, 1.0)]
        trainer.global_step = step
        callback.on_train_batch_end(trainer, module, None, None, 0)
    file = folder / "loss_spikes.jsonl"
    return [json.loads(line)["step"] for line in file.read_text().splitlines()] if file.is_file() else []


def test_jumps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On a falling, noisy loss: one bad step, and a jump of ten; each is said once."""
    draw = random.Random(0)
    losses = [8 * math.exp(-step / 200) + 2 + draw.gauss(0, 0.1) for step in range(1000)]
    for step in (300, *range(600, 610)):
        losses[step - 1] += 2.0
    assert watch(tmp_path, losses) == [300, *range(600, 610)]
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in said] == ["step 300", "step 600"]


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.nightly) for n in range(1, 5))])
@pytest.mark.parametrize("noise", [0.01, 0.1, 0.4])
def test_no_false_alarm(tmp_path: Path, seed: int, noise: float) -> None:
    """20,000 ordinary steps of each."""
    draw = random.Random(seed)
    assert watch(tmp_path, [10 / (1 + step / 50) + 3 + draw.gauss(0, noise) for step in range(20000)]) == []


def test_in_a_run(train_tiny: Any, run_cli: Any, capsys: Any) -> None:
    """By its name in the configuration, resumed; a run that learns has no jump."""
    settings = (
        "callbacks=loss_watch",
        "callbacks.loss_watch.window=10",
        "trainer.max_steps=30",
        "trainer.log_every=10",
    )
    run = train_tiny("run", *settings, "callbacks.sample_text.max_new_tokens=2", "stop_after=20")
    assert run_cli("train", "resume=run").status == 0
    assert not (run / "loss_spikes.jsonl").exists()
