"""An optimizer that gives other weights than it trains: checkpoints hold these, validation and the model those."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

SCHEDULE_FREE = ("optimizer=schedule_free", "scheduler=constant", "trainer.max_steps=12")
OFTEN = ("trainer.val_every=2", "trainer.save_every=3", "trainer.keep=0")


def checkpoint(run: Path, name: str = "last") -> dict[str, Any]:
    content: dict[str, Any] = torch.load(run / f"checkpoints/{name}.ckpt", weights_only=True)
    return content


@pytest.mark.nightly
def test_neither_a_break_nor_looking_at_it_changes_a_bit(train_tiny: Any, run_cli: Any) -> None:
    """The library goes between its two sets of weights by products, whose rounding would stay in the weights; and its
    count of steps lies among the settings, which a resumed run takes from its configuration."""
    straight = train_tiny("straight", *SCHEDULE_FREE, "trainer.val_every=12")
    broken = train_tiny("broken", *SCHEDULE_FREE, *OFTEN, "stop_after=5")
    assert checkpoint(broken)["optimizer_states"][0]["param_groups"][0]["k"] == 5
    outcome = run_cli("train", "resume=broken")
    assert outcome.status == 0, outcome.err
    expected, found = checkpoint(straight), checkpoint(broken)
    assert all(torch.equal(tensor, found["state_dict"][name]) for name, tensor in expected["state_dict"].items())
    for index, state in expected["optimizer_states"][0]["state"].items():
        assert all(
            torch.equal(value, found["optimizer_states"][0]["state"][index][key]) for key, value in state.items()
        )
    settings = [content["optimizer_states"][0]["param_groups"] for content in (expected, found)]
    assert settings[0] == settings[1]
    assert settings[0][0]["train_mode"]


def test_the_model_is_the_average(train_tiny: Any) -> None:
    """Defazio et al. 2024: y = (1 - b) z + b x is where gradients are taken, x is what one keeps."""
    run = train_tiny("run", *SCHEDULE_FREE, *OFTEN)
    content, bundle = checkpoint(run, "best"), load_file(run / "model/model.safetensors")
    optimizer = content["optimizer_states"][0]
    beta = optimizer["param_groups"][0]["betas"][0]
    order = [index for group in optimizer["param_groups"] for index in group["params"]]
    z = {tuple(optimizer["state"][index]["z"].shape): optimizer["state"][index]["z"] for index in order}
    name = "token_embedding.weight"
    y = content["state_dict"][f"model.{name}"]
    x = (y - (1 - beta) * z[tuple(y.shape)]) / beta
    torch.testing.assert_close(bundle[name], x, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(bundle[name], y, rtol=1e-5, atol=1e-6)


def test_its_settings_are_checked(run_cli: Any, tiny: tuple[str, ...]) -> None:
    outcome = run_cli("train", *tiny, "optimizer=schedule_free", "optimizer.beta=1", "run_dir=run")
    assert outcome.status == 2
    assert "optimizer.beta" in outcome.err
