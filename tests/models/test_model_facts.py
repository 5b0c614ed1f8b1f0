"""What is said about a model."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files

import pytest
import yaml

from slm.models.config import ModelConfig
from slm.models.contract import build_model
from slm.models.flops import training_flops_per_token
from slm.schema import dotted
from slm.training.build import summarize
from slm.weights.hugging_face import nearest_family


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


def test_no_part_of_the_default_model_is_left_to_python() -> None:
    """`activation` was relu2 in conf/model/base.yaml and gelu_tanh in Python: a file that says all leaves no doubt."""
    shown = yaml.safe_load((files("slm.conf") / "model/base.yaml").read_text(encoding="utf-8"))
    transformer = {"dim": 8, "n_layers": 1, "n_heads": 1}
    whole = ModelConfig.from_dict(
        {"name": "gpt", "params": {"max_seq_len": 8}, "modules": {"transformer": transformer}}
    )
    assert {key for key, _ in dotted(whole.to_dict())} <= {key for key, _ in dotted(shown)}


def test_the_default_model_is_of_a_published_family() -> None:
    """It was a GPT-2 with ReLU², which no family has: no other program took it as it was."""
    shown = yaml.safe_load((files("slm.conf") / "model/base.yaml").read_text(encoding="utf-8"))
    shown = {key: shown[key] for key in ("name", "params", "modules")}
    shown["params"]["vocab_size"] = 64
    shown["modules"]["emb_dropout"]["p"] = shown["modules"]["transformer"]["dropout"] = 0.0
    family, lost = nearest_family(ModelConfig.from_dict(shown))
    assert (family.model_type, lost) == ("qwen3", [])
