"""Small models of every kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from slm.models.config import ModelConfig
from slm.models.contract import build_model

VOCAB_SIZE, PADDED, MAX_SEQ_LEN, DIM = 29, 32, 12, 16


@pytest.fixture(scope="session")
def make_config() -> Callable[..., ModelConfig]:
    """``make_config(position=…, tie=…, freeze=(module, …), rotary=…, softcap=…, values=…, **transformer)``."""

    def make(
        position: str = "learned",
        tie: bool = True,
        freeze: tuple[str, ...] = (),
        rotary: dict[str, Any] | None = None,
        softcap: float | None = None,
        values: bool = False,
        **transformer: Any,
    ) -> ModelConfig:
        modules: dict[str, dict[str, Any]] = {
            "token_embedding": {"values": values},
            "position_embedding": {"kind": position, "rotary": rotary or {}},
            "transformer": {"dim": DIM, "n_layers": 2, "n_heads": 4, **transformer},
            "output_projection": {"tie_weights": tie, "softcap": softcap},
        }
        for name in freeze:
            modules[name]["freeze"] = True
        params = {"max_seq_len": MAX_SEQ_LEN, "vocab_size": VOCAB_SIZE, "vocab_multiple": PADDED}
        return ModelConfig.from_dict({"name": "gpt", "params": params, "modules": modules})

    return make


@pytest.fixture(scope="session")
def make_model(make_config: Callable[..., ModelConfig]) -> Callable[..., nn.Module]:
    """As `make_config`, built in eval mode with weights so large that every part shows in the logits."""

    def make(**settings: Any) -> nn.Module:
        model = build_model(make_config(**settings))
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
        return model.eval()

    return make


@pytest.fixture
def ids() -> torch.Tensor:
    """(3, 12) token ids."""
    return torch.randint(VOCAB_SIZE, (3, MAX_SEQ_LEN), generator=torch.Generator().manual_seed(1))
