"""Blocks that run again in the backward pass: the same numbers from less memory; and a collector with little to do."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch import Tensor

from slm.models.config import ModelConfig
from slm.models.contract import build_model
from slm.training.process import FrozenGarbage


def gradients(recompute: bool) -> tuple[list[Tensor], int]:
    """Of a model with dropout; and how many numbers its graph kept."""
    torch.manual_seed(0)
    shape = {
        "name": "gpt",
        "params": {"max_seq_len": 16, "vocab_size": 30, "dropout": 0.2},
        "modules": {"transformer": {"dim": 32, "n_layers": 3, "n_heads": 2, "dropout": 0.2}},
    }
    model: Any = build_model(ModelConfig.from_dict(shape))
    model.transformer.recompute = recompute
    kept = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        loss = model(torch.randint(30, (4, 16))).square().sum()
    loss.backward()
    return [parameter.grad for parameter in model.parameters()], kept


def test_the_same_gradients_from_less() -> None:
    """To the bit, dropout's draws too."""
    (plain, all_kept), (again, kept) = gradients(False), gradients(True)
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))
    assert kept < all_kept / 4


@pytest.mark.nightly
def test_a_run_is_the_same_with_it(train_tiny: Any) -> None:
    plain, again = (
        torch.load(train_tiny(f"run_{flag}", f"trainer.recompute={flag}") / "checkpoints/last.ckpt", weights_only=True)
        for flag in ("false", "true")
    )
    assert all(torch.equal(plain["state_dict"][name], again["state_dict"][name]) for name in plain["state_dict"])


def test_garbage_is_set_aside_while_training_only() -> None:
    callback = FrozenGarbage()
    before = gc.get_freeze_count()
    callback.on_train_start(None, None)
    try:
        assert gc.get_freeze_count() > before + 1000
    finally:
        callback.teardown(None, None, "fit")  # type: ignore[arg-type]
    assert gc.get_freeze_count() == 0
    assert gc.isenabled()
