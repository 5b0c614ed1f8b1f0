"""The model of any checkpoint of a run, by its name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

# a rate that ruins the model, so that the last one is not the best
RUINOUS = (
    *("scheduler=constant", "scheduler.warmup_steps=6", "optimizer.lr=1", "trainer.grad_clip=0"),
    *("trainer.max_steps=8", "trainer.val_every=2", "trainer.save_every=2", "trainer.keep=0"),
)


NIGHTLY = [pytest.param(kind, marks=pytest.mark.nightly) for kind in ("lora", "schedule_free")]


@pytest.mark.parametrize("kind", ["plain", *NIGHTLY])
def test_last_and_best(
    invoke: Any, tiny: tuple[str, ...], tiny_run: Path, tmp_path: Path, metrics_of: Any, kind: str
) -> None:
    """Losses are those that training found; a checkpoint of the best step gives the tensors of the bundle to the bit,
    with LoRA merged, and of a schedule-free optimizer what it gives, not what it trains."""
    more: tuple[str, ...] = ()
    settings = tiny
    if kind == "lora":
        settings = tuple(s for s in tiny if not s.startswith(("model.", "tokenizer")))
        more = (f"model.weights={tiny_run}", "adapter=lora", "adapter.rank=4", "optimizer.lr=30")
    elif kind == "schedule_free":
        more = ("optimizer=schedule_free",)
    outcome = invoke(tmp_path, "train", *settings, *RUINOUS, *more, "run_dir=run")
    assert outcome.status == 0, outcome.err
    run = tmp_path / "run"
    losses = {int(row["step"]): float(row["val/loss"]) for row in metrics_of(run) if row["val/loss"]}
    best = min(losses, key=lambda step: losses[step])
    assert best < 8, "the rate was meant to be ruinous"

    def loss(name: str) -> float:
        outcome = invoke(tmp_path, "evaluate", "run=run", f"checkpoint={name}")
        assert outcome.status == 0, outcome.err
        return float(json.loads(outcome.out)["loss"])

    assert loss("last") == pytest.approx(losses[8], rel=1e-5)
    assert loss("best") == pytest.approx(losses[best], rel=1e-5)
    name = f"step_{best:08d}"
    assert invoke(tmp_path, "convert", "source=run", f"checkpoint={name}", "out=again").status == 0
    one, other = load_file(run / "model/model.safetensors"), load_file(tmp_path / "again/model.safetensors")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    outcome = invoke(tmp_path, "generate", "run=run", "checkpoint=last", "prompt=a", "generation.max_new_tokens=2")
    assert outcome.status == 0, outcome.err


def test_a_name_that_is_none(run_cli: Any, tiny_run: Path) -> None:
    outcome = run_cli("generate", f"run={tiny_run}", "checkpoint=step_3", "prompt=a")
    assert outcome.status == 2
    there = ", ".join(sorted(file.stem for file in (tiny_run / "checkpoints").iterdir()))
    assert outcome.err == f"slm-generate: checkpoint: the run '{tiny_run}' has no 'step_3'; there are: {there}\n"
    outcome = run_cli("generate", f"model_dir={tiny_run}/model", "checkpoint=last", "prompt=a")
    assert outcome.err == "slm-generate: checkpoint is one of a run's; give run=PATH, or leave it out\n"
