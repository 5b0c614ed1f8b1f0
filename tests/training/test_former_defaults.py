"""A run of an older version that is gone on with: what it had by default stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from slm.training.run.former_defaults import defaults_of_then

# as versions before Qwen3's parts, and before a choice of the tokenizer's split, wrote it
_THEN: dict[str, Any] = {
    "model": {
        "name": "gpt",
        "params": {"max_seq_len": 64, "vocab_size": None},
        "modules": {
            "position_embedding": {"kind": "learned"},
            "transformer": {"dim": 32, "norm": "layer_norm", "qkv_bias": True, "mlp": "mlp", "mlp_mult": 4},
            "output_projection": {"tie_weights": True},
        },
    },
    "optimizer": {"_target_": "torch.optim.AdamW", "lr": "auto"},
    "scheduler": {"name": "cosine"},
    "tokenizer": {"kind": "bpe", "vocab_size": 300},
    "data": {"kind": "text", "path": "t.txt"},
}
_SHAPE = ("model.params.max_seq_len", "model.modules.transformer.dim")
_PARTS = [
    'model.modules.position_embedding.kind="learned"',
    'model.modules.transformer.norm="layer_norm"',
    "model.modules.transformer.qkv_bias=true",
    'model.modules.transformer.mlp="mlp"',
    "model.modules.transformer.mlp_mult=4",
    "model.modules.output_projection.tie_weights=true",
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(_THEN), encoding="utf-8")
    return tmp_path


def test_what_was_the_default_is_repeated(run: Path) -> None:
    """A model, an optimizer and a tokenizer of today's defaults would not have fitted the checkpoint."""
    others = ["data.split_by_name=false", "tokenizer.split=lines", "optimizer=adamw", "scheduler=cosine"]
    assert sorted(defaults_of_then(run, set(), set(_SHAPE))) == sorted([*others, *_PARTS])


def test_what_was_typed_then_or_is_now_decides(run: Path) -> None:
    kept = {"model", "optimizer", "data", "tokenizer"}
    assert defaults_of_then(run, {"scheduler"}, kept) == ["data.split_by_name=false", "tokenizer.split=lines"]
    assert defaults_of_then(run, {"data", "tokenizer"}, {"recipe"}) == []
    assert "model.modules.transformer.norm" not in " ".join(defaults_of_then(run, {"model.modules.transformer"}, set()))


def test_a_run_of_now_repeats_nothing(run: Path) -> None:
    with initialize_config_module("slm.conf", version_base=None):
        composed = OmegaConf.to_container(compose("train", overrides=["run_dir=x"]), resolve=True)
    (run / "config.yaml").write_text(yaml.safe_dump(composed), encoding="utf-8")
    assert defaults_of_then(run, set(), set()) == []
