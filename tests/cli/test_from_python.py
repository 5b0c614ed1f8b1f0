"""`import slm` for a notebook: the command's own configuration, model and data, in the command's own words."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import slm
from slm.errors import UserError
from slm.training.run.checkpoint_io import model_state, read_checkpoint


def test_a_configuration_is_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a choice implies, and a folder of one's own, too; and nothing is made of it."""
    monkeypatch.chdir(tmp_path)
    config = slm.config("model=gpt2_base", "optimizer.lr=3e-4", "trainer.max_epochs=2", "run_dir=here")
    assert (config.model.modules.transformer.dim, config.optimizer["lr"], config.run_dir) == (768, 3e-4, Path("here"))
    assert config.trainer.max_steps is None
    assert not list(tmp_path.iterdir())
    (tmp_path / "own/model").mkdir(parents=True)
    (tmp_path / "own/model/mine.yaml").write_text("defaults: [base]\nmodules: {transformer: {dim: 96}}\n")
    assert slm.config("model=mine", config_dir="own").model.modules.transformer.dim == 96


@pytest.mark.parametrize(
    "settings",
    [
        ("model=gpt2_bas", "optimiser.lr=3", "trainer.max_steps=0"),
        ("optimizer.lr=-1", "data.seq_len=x"),
        ("seed",),
        ("resume=nowhere",),
        ("model.n_layers=3",),
    ],
)
def test_mistakes_are_told_in_the_commands_words(settings: tuple[str, ...], run_cli: Any) -> None:
    refused = run_cli("train", *settings)
    assert refused.status == 2
    with pytest.raises(UserError) as told:
        slm.config(*settings)
    assert str(told.value).splitlines() == [line.partition(": ")[2] for line in refused.err.splitlines()]


def test_a_flag_is_for_the_command_line() -> None:
    with pytest.raises(UserError, match="'-m' is for the command line"):
        slm.config("-m", "seed=1,2")


def test_the_model_is_the_one_that_training_begins_with(train_tiny: Callable[..., Path], tiny: tuple[str, ...]) -> None:
    """A rate that moves no number of fp32 but a zero shows what a run began with. Random numbers of the notebook go on
    as they would have."""
    still = ("optimizer.lr=1e-30", "trainer.max_steps=1", "seed=5")
    run = train_tiny("run", *still)
    began = model_state(read_checkpoint(run / "checkpoints/last.ckpt"))
    state = torch.get_rng_state()
    model = slm.build(slm.config(*tiny, *still))
    assert torch.equal(torch.get_rng_state(), state)
    assert model.state_dict().keys() == began.keys()
    assert all(torch.allclose(one, began[name], rtol=0, atol=1e-20) for name, one in model.state_dict().items())
    with pytest.raises(UserError, match=r"slm\.load\(RUN\)"):
        slm.build(slm.config(f"resume={run}"))


def test_the_data_comes_in_batches(tiny: tuple[str, ...], text_file: Path) -> None:
    """Also when the room of the same name was imported first, as whatever reads data does."""
    import slm.data.config

    data = slm.data(slm.config(*tiny))
    batch = next(iter(data.train_dataloader()))
    assert batch["input_ids"].shape == batch["labels"].shape == (4, 16)
    assert torch.equal(batch["input_ids"][:, 1:], batch["labels"][:, :-1])
    text = text_file.read_text(encoding="utf-8").encode()
    assert bytes(batch["input_ids"][0].tolist()) in text
    assert slm.data.config.DataConfig.__name__ == "DataConfig", "it is still the package"


def test_a_configuration_needs_no_torch() -> None:
    code = "import sys, slm; slm.config('model=gpt2_base'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
