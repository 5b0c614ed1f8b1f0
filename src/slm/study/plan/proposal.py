"""A model and its steps for a budget: the run's own kind of model at the size that the rules give."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from slm.models.config import ModelConfig
from slm.models.contract import build_model
from slm.models.flops import token_flops
from slm.study.plan.budget import TOKENS_PER_PARAMETER, batch_tokens
from slm.study.plan.planned import PlannedRun, parameter_counts

_WIDEST = 16384


@dataclass(frozen=True)
class Proposal:
    """What a number of operations is spent on."""

    flops: float  # in all
    parameters: int
    width: int
    n_layers: int
    tokens: float
    windows: int  # an optimizer step
    steps: int

    @property
    def settings(self) -> tuple[str, ...]:
        """As one types them."""
        shape = "model.modules.transformer"
        return (
            f"{shape}.dim={self.width}",
            f"{shape}.n_layers={self.n_layers}",
            f"trainer.global_batch_size={self.windows}",
            f"trainer.max_steps={self.steps}",
        )


def proposal_for(run: PlannedRun, flops: float) -> Proposal:
    """Of the widths that are multiples of a head, as deep as the run's own model is for its width, the one whose
    training on 20 tokens a parameter comes nearest to `flops`, by our own count; then as many steps as these pay."""
    shape = run.model.modules.transformer
    per_layer = shape.dim / shape.n_layers
    best, distance = None, float("inf")
    for width in range(shape.head_dim, _WIDEST, shape.head_dim):
        sized = _sized(run.model, width, max(1, round(width / per_layer)))
        cost = sized.cost_a_token * TOKENS_PER_PARAMETER * sized.parameters
        apart = max(cost / flops, flops / cost)
        if apart > distance:
            break
        best, distance = sized, apart
    assert best is not None
    a_window = run.config.data.seq_len
    windows = max(1, round(batch_tokens(flops) / a_window))
    windows = max(1, windows // run.n_devices) * run.n_devices
    steps = max(1, round(flops / (best.cost_a_token * windows * a_window)))
    return Proposal(flops, best.parameters, best.width, best.n_layers, steps * windows * a_window, windows, steps)


@dataclass(frozen=True)
class _Sized:
    width: int
    n_layers: int
    parameters: int
    cost_a_token: float


def _sized(config: ModelConfig, width: int, n_layers: int) -> _Sized:
    own = config.modules.transformer
    heads: dict[str, Any] = {"n_heads": width // own.head_dim, "head_dim": own.head_dim}
    shared = own.n_heads // own.n_kv_heads
    heads["n_kv_heads"] = max(1, heads["n_heads"] // shared) if heads["n_heads"] % shared == 0 else heads["n_heads"]
    sizes: dict[str, Any] = {
        "dim": width,
        "n_layers": n_layers,
        "mlp_dim": round(own.mlp_mult * width),
        "full_layers": (),
    }
    transformer = replace(own, **heads, **sizes)
    sized = replace(config, modules=replace(config.modules, transformer=transformer))
    with torch.device("meta"):
        model = build_model(sized)
    cost = token_flops(model, config.params.max_seq_len).of_training(1)
    return _Sized(width, n_layers, parameter_counts(model)["total"], cost)
