"""The learning rate at the corners of its formulas, and which parameters decay."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from slm.errors import UserError
from slm.models.config import ModelConfig
from slm.models.contract import build_model
from slm.schema import checked
from slm.training.config import SCHEDULES, SchedulerConfig, TrainerConfig
from slm.training.optim.parameter_groups import parameter_groups
from slm.training.optim.schedules import Schedule


def factor(name: str, **settings: Any) -> Callable[[int], float]:
    read = {key: value for key, value in (("warmup_steps", 10), ("min_lr_ratio", 0.1)) if key in SCHEDULES[name]}
    return Schedule.of(checked(SchedulerConfig, {"name": name, **read, **settings}), 110).factor


@pytest.mark.parametrize("name", ["cosine", "linear", "wsd", "constant"])
def test_warmup(name: str) -> None:
    """A line from just above 0 to the peak: no step is wasted at rate 0, and none makes a jump."""
    rise = [factor(name)(step) for step in range(11)]
    assert rise == pytest.approx([(step + 1) / 11 for step in range(11)])


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("cosine", {}, {10: 1.0, 35: 0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2, 60: 0.55, 110: 0.1, 500: 0.1}),
        ("linear", {}, {10: 1.0, 60: 0.55, 110: 0.1, 500: 0.1}),
        ("wsd", {"decay_fraction": 0.2}, {10: 1.0, 88: 1.0, 99: 0.55, 110: 0.1, 500: 0.1}),
        ("wsd", {"decay_fraction": 0.0}, {10: 1.0, 109: 1.0, 110: 0.1}),
        ("constant", {}, {10: 1.0, 110: 1.0, 500: 1.0}),
        ("none", {}, {0: 1.0, 500: 1.0}),
        ("cosine", {"warmup_steps": 0}, {0: 1.0, 55: 0.55}),
        ("cosine", {"warmup_steps": 200}, {109: 110 / 201}),
        ("constant", {"warmup_steps": 0.1}, {0: 1 / 12, 10: 11 / 12, 11: 1.0}),
        # a warmup that lasts into the decay delays it: once the factor fell from 0.98 to 0.67 there, and never was 1
        ("wsd", {"warmup_steps": 55, "decay_fraction": 0.75}, {54: 55 / 56, 55: 1.0, 56: 1 - 0.9 / 55, 110: 0.1}),
    ],
)
def test_corners(name: str, settings: dict[str, Any], expected: dict[int, float]) -> None:
    assert {step: factor(name, **settings)(step) for step in expected} == pytest.approx(expected)


def test_the_logged_rate_is_that_of_the_step(train_tiny: Any, metrics_of: Any) -> None:
    """The schedule has moved on when the row is written; the row must hold what the step was made with."""
    run = train_tiny(
        "run", "scheduler=linear", "scheduler.warmup_steps=2", "optimizer.lr=0.01", "scheduler.min_lr_ratio=0.1"
    )
    schedule = Schedule.of(SchedulerConfig("linear", 2, 0.1), 6).factor
    logged = [float(row["train/lr"]) for row in metrics_of(run)]
    assert logged == pytest.approx([0.01 * schedule(step) for step in range(6)])


def test_decay_acts_on_trained_matrices_only() -> None:
    """Biases and norm gains shrink for no good; a frozen parameter in the optimizer would decay all the same."""
    shape = {
        "name": "gpt",
        "params": {"max_seq_len": 8, "vocab_size": 10},
        "modules": {
            "transformer": {"dim": 8, "n_layers": 1, "n_heads": 2},
            "position_embedding": {"kind": "learned", "freeze": True},
        },
    }
    model = build_model(ModelConfig.from_dict(shape))
    decayed, others = parameter_groups(model, 0.1)
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert {p.dim() for p in decayed["params"]} == {2}
    assert {p.dim() for p in others["params"]} == {1}
    inside = {id(p) for group in (decayed, others) for p in group["params"]}
    assert inside == {id(p) for p in model.parameters() if p.requires_grad}
    assert not inside & {id(p) for p in model.position_embedding.parameters()}  # type: ignore[union-attr]


def test_a_frozen_module_stays_as_it_was(train_tiny: Any, run_cli: Any, tiny: Any, tmp_path: Path) -> None:
    """Said in the summary, not a bit changed by training; with everything frozen there is nothing to do."""
    frozen = [f"model.modules.{name}.freeze=true" for name in ("token_embedding", "output_projection")]
    outcome = run_cli("train", *tiny, "run_dir=run", *frozen, "trainer.save_every=1", "trainer.keep=0")
    assert outcome.status == 0, outcome.err
    assert any(line.split() == ["token_embedding", "10,240", "frozen"] for line in outcome.err.splitlines())
    first, last = (
        torch.load(tmp_path / "run/checkpoints" / name, weights_only=True)["state_dict"]
        for name in ("step_00000001.ckpt", "last.ckpt")
    )
    assert torch.equal(first["model.token_embedding.weight"], last["model.token_embedding.weight"])
    assert not torch.equal(first["model.position_embedding.weight"], last["model.position_embedding.weight"])
    everything = [f"model.modules.{name}.freeze=true" for name in ("position_embedding", "transformer")]
    outcome = run_cli("train", *tiny, "run_dir=frozen", *frozen, *everything)
    assert (outcome.status, (tmp_path / "frozen").exists()) == (2, False)
    assert "nothing to train" in outcome.err


def test_accumulation_is_derived() -> None:
    """From windows a step, windows a micro-batch and devices; what does not divide is refused with what would."""
    periods = {"max_steps": 1, "log_every": 1, "val_every": 1, "save_every": 1}
    config = checked(TrainerConfig, {**periods, "batch_size": 4, "global_batch_size": 24})
    assert (config.accumulation(1), config.accumulation(2)) == (6, 3)
    assert checked(TrainerConfig, {**periods, "batch_size": 4}).accumulation(8) == 1
    with pytest.raises(UserError, match=r"\(4 x 5 = 20\); set it to 20"):
        config.accumulation(5)
