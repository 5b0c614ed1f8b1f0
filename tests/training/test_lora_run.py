"""A run with LoRA: small checkpoints, exact resume, a plain model at the end."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file


@pytest.fixture(scope="module")
def run(tiny: tuple[str, ...], tiny_run: Path) -> tuple[str, ...]:
    """Settings of a run from the tiny one's weights; the learning rate is LoRA's own."""
    of_the_run = [s for s in tiny if not s.startswith(("model.", "tokenizer", "optimizer.lr"))]
    return (*of_the_run, "adapter=lora", "adapter.rank=4", "adapter.dropout=0.1", "model.params.dropout=0.1")


def test_a_resumed_run_is_the_unbroken_one_although_its_source_has_gone(
    invoke: Any, run: tuple[str, ...], tiny_run: Path, tmp_path: Path, metrics_of: Any
) -> None:
    """The base stands once, in ``start/``; a checkpoint holds what is trained; both together are the run."""
    shutil.copytree(tiny_run / "model", tmp_path / "source")
    command = ("train", *run, "model.weights=./source")
    assert invoke(tmp_path, *command, "run_dir=whole").status == 0
    assert invoke(tmp_path, *command, "run_dir=parts", "stop_after=3").status == 0
    shutil.rmtree(tmp_path / "source")
    outcome = invoke(tmp_path, "train", "resume=parts")
    assert outcome.status == 0, outcome.err
    assert metrics_of(tmp_path / "parts") == metrics_of(tmp_path / "whole")
    kept, last = (load_file(tmp_path / name / "model/model.safetensors") for name in ("parts", "whole"))
    base = load_file(tiny_run / "model/model.safetensors")
    assert kept.keys() == last.keys() == base.keys()
    assert all(torch.equal(kept[name], last[name]) for name in last)
    moved = {name for name in base if not torch.equal(base[name][:258], last[name][:258])}  # rows beyond are padding
    assert moved == {
        f"transformer.blocks.0.{layer}.weight"
        for layer in ("attention.qkv", "attention.out_proj", "mlp.up_proj", "mlp.down_proj")
    }
    checkpoint = torch.load(tmp_path / "whole/checkpoints/last.ckpt", weights_only=True)
    assert all(".lora_" in name for name in checkpoint["state_dict"])
    trained = sum(tensor.numel() for tensor in checkpoint["state_dict"].values())
    assert trained == 4 * ((32 + 96) + (32 + 32) + 2 * (32 + 128))

    summary = json.loads((tmp_path / "whole/summary.json").read_text())
    outcome = invoke(tmp_path, "evaluate", "run=whole", "precision=32")
    assert json.loads(outcome.out)["loss"] == pytest.approx(summary["best_val_loss"], abs=1e-5), (
        "merged is another model"
    )
    assert float(metrics_of(tmp_path / "whole")[-1]["train/lr"]) <= 2e-3 * 192 / 32, "ten times fine-tuning's rate"


@pytest.mark.nightly
def test_new_tokens_are_trained_with_it(invoke: Any, run: tuple[str, ...], tiny_run: Path, tmp_path: Path) -> None:
    """Rows that ``grow_vocab`` makes are frozen too unless they are named: it says so."""
    text = next(setting.partition("=")[2] for setting in run if setting.startswith("data.path="))
    command = ("train", *run, f"model.weights={tiny_run}", "model.grow_vocab=mean", f"data.path={text}")
    outcome = invoke(tmp_path, *command)
    assert outcome.status == 2
    assert "set adapter.also_train=[token_embedding]" in outcome.err
    outcome = invoke(tmp_path, *command, "adapter.also_train=[token_embedding]", "run_dir=grown")
    assert outcome.status == 0, outcome.err
    checkpoint = torch.load(tmp_path / "grown/checkpoints/last.ckpt", weights_only=True)
    assert "model.token_embedding.weight" in checkpoint["state_dict"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("adapter=lora",), "adapter=lora adapts weights that exist; name them (model.weights=…)"),
        (("model.weights=RUN", "adapter=lora", "adapter.rank=0"), "adapter.rank should be greater than 0; got 0"),
        (("model.weights=RUN", "adapter=lora", "adapter.targets=[]"), "adapter: targets is empty"),
        (
            ("model.weights=RUN", "adapter=lora", "model.modules.transformer.freeze=true"),
            "leave model.modules.transformer.freeze false",
        ),
    ],
)
def test_what_cannot_be_adapted_is_refused_in_one_line(
    run_cli: Any, tiny: tuple[str, ...], tiny_run: Path, arguments: tuple[str, ...], message: str
) -> None:
    data = [setting for setting in tiny if setting.startswith("data")]
    outcome = run_cli("train", *data, *(argument.replace("RUN", str(tiny_run)) for argument in arguments))
    assert outcome.status == 2
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1
