"""The model YAMLs, and what is said about a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from slm.models.config import ModelConfig
from slm.models.flops import training_flops_per_token
from slm.models.modules.build import build_model
from slm.models.summary import summarize

PARAMETERS = {
    "gpt2_base": 124_439_808,
    "gpt2_medium": 354_823_168,
    "gpt2_large": 774_030_080,
    "gpt2_xl": 1_557_611_200,
}


@pytest.mark.parametrize("preset", PARAMETERS)
def test_gpt2_presets_have_gpt2s_parameters(preset: str) -> None:
    """To the last one, as published (openai-community/gpt2 to gpt2-xl), so that their weights fit."""
    overrides = [f"model={preset}", "model.params.vocab_size=50257", "model.params.vocab_multiple=1"]
    with initialize_config_module(config_module="slm.conf", version_base="1.3"):
        cfg = compose("train", overrides=overrides)
    values: Any = OmegaConf.to_container(cfg.model, resolve=True)
    with torch.device("meta"):
        model = build_model(ModelConfig.from_dict(values))
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[preset]


@pytest.mark.parametrize("tie", [True, False])
def test_flops_by_hand(make_config: Callable[..., ModelConfig], tie: bool) -> None:
    """dim 16, 2 layers, MLP 64, 32 rows of head, 12 positions; look-ups are free, so a tie changes nothing."""
    products = 2 * (16 * 48 + 16 * 16 + 16 * 64 + 64 * 16) + 32 * 16
    attention = 2 * (2 * 12 * 16)  # a layer: QK^T and AV, 12 positions of width 16 each
    model = build_model(make_config(tie=tie))
    assert training_flops_per_token(model) == 3 * 2 * (products + attention)


def test_the_summary_names_what_is_frozen(make_config: Callable[..., ModelConfig]) -> None:
    lines = summarize(build_model(make_config(freeze=("transformer",)))).splitlines()
    said = {line.split()[0]: line.split()[1:] for line in lines}
    assert said["token_embedding"] == ["512"]
    assert said["transformer"][1:] == ["frozen"]
    assert said["total"][1:] == ["(704", "trained)"]


def test_a_width_that_is_a_product_in_decimals_is_that_product(make_config: Callable[..., ModelConfig]) -> None:
    """1.15 * 100 is 114.99… in binary and was cut to 114."""
    assert make_config(dim=100, mlp_mult=1.15).modules.transformer.mlp_dim == 115
