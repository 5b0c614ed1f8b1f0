"""What a trace holds is what the model computes: its parts add up, in every architecture, and gradients are right."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from slm.errors import UserError
from slm.models.inference.prepared import prepare_for_inference
from slm.models.trace import trace

LLAMA = {"norm": "rms_norm", "bias": False, "qkv_bias": False, "mlp": "glu", "activation": "silu", "n_kv_heads": 2}
CASES: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "qwen3": {**LLAMA, "position": "rotary", "qk_norm": True, "head_dim": 8},
    "neox": {"position": "rotary", "parallel_residual": True, "activation": "gelu_tanh", "tie": False},
    "sliding": {**LLAMA, "position": "rotary", "sliding_window": 3, "full_layers": [1]},
    "post-norm": {"prenorm": False, "position": "sinusoidal"},
    "modern": {
        **LLAMA, "mlp": "mlp", "activation": "relu2", "position": "rotary", "embedding_skip": True, "values": True,
        "softcap": 5.0,
    },
}  # fmt: skip


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def model(request: pytest.FixtureRequest, make_model: Callable[..., nn.Module]) -> Any:
    return make_model(**request.param)


def close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-4, atol=1e-4)


def test_the_parts_make_up_the_whole(model: Any, ids: Tensor) -> None:
    """The logits are the model's own; the stream is the sum of what layers write into it; the lens of the last layer is
    the model; maps are causal distributions, which mix values to what the attention writes."""
    traced = trace(model, ids)
    shape = model.config.modules.transformer
    assert close(traced.logits, model(ids))
    assert close(traced.final, model.hidden_states(ids))
    assert torch.equal(traced.logit_lens(shape.n_layers), traced.logits)
    assert len(traced.hidden) == shape.n_layers + 1
    for layer, weights in enumerate(traced.attention):
        before, after = traced.hidden[layer : layer + 2]
        block = model.transformer.blocks[layer]
        if block.embedding_skip is not None:
            before = block.embedding_skip(before, traced.hidden[0])
        if shape.prenorm:
            assert close(after, before + traced.attention_out[layer] + traced.mlp_out[layer])
        seen = torch.ones(12, 12).tril().bool()
        if (window := shape.window_of(layer)) is not None:
            seen = seen.triu(1 - window)
        assert weights.shape == (3, 4, 12, 12)
        assert close(weights.sum(-1), torch.ones(3, 4, 12))
        assert ((weights > 0) == seen).all()
    assert not [module for module in model.modules() if module._forward_hooks or module._forward_pre_hooks]
    assert all(block.attention.watch is None for block in model.transformer.blocks)


def test_maps_can_be_left_out(model: Any, ids: Tensor) -> None:
    with_maps, without = trace(model, ids), trace(model, ids, attention=False)
    assert without.attention == ()
    assert all(close(one, other) for one, other in zip(with_maps.hidden, without.hidden, strict=True))


@pytest.mark.parametrize("prepared", [False, True])
def test_gradients_are_those_of_the_model(model: Any, ids: Tensor, prepared: bool) -> None:
    """The loss changes by what the gradient says if a hidden state is moved a little; weights that are prepared for
    inference let gradients through as others do, and none is left on the model."""
    if prepared:
        prepare_for_inference(model)
    traced = trace(model, ids, gradient_of="loss")
    assert {name for name, _ in traced.named() if name.startswith("gradient.hidden")} == {
        f"gradient.hidden.{layer}" for layer in range(3)
    }
    block, step = model.transformer.blocks[1], 1e-2
    direction = traced.gradients["hidden.1"] / traced.gradients["hidden.1"].norm()

    def loss(moved: float) -> float:
        hook = block.register_forward_pre_hook(lambda _, read: (read[0] + moved * direction, *read[1:]))
        with torch.no_grad():
            logits = model(ids)
        hook.remove()
        return float(cross_entropy(logits[:, :-1].flatten(0, 1).double(), ids[:, 1:].flatten()))

    expected = float(traced.gradients["hidden.1"].norm())
    assert math.isclose((loss(step) - loss(-step)) / (2 * step), expected, rel_tol=0.02)
    assert {"attention.0", "attention_out.1", "mlp_out.0", "final", "logits"} <= traced.gradients.keys()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_of_a_scalar_of_ones_own(make_model: Callable[..., nn.Module], ids: Tensor) -> None:
    """Of one logit at one place; no later place has a part in it."""
    gradients = trace(make_model(), ids, gradient_of=lambda logits: logits[0, 4, 7]).gradients
    assert gradients["logits"].nonzero().tolist() == [[0, 4, 7]]
    assert (gradients["hidden.0"][0, :5] != 0).any()
    assert not gradients["hidden.0"][0, 5:].any()
    assert not gradients["hidden.0"][1:].any()


def test_it_is_saved_whole(make_model: Callable[..., nn.Module], ids: Tensor, tmp_path: Path) -> None:
    traced = trace(make_model(), ids, gradient_of="loss")
    traced.save(tmp_path / "traced.safetensors")
    saved = load_file(tmp_path / "traced.safetensors")
    assert saved.keys() == dict(traced.named()).keys()
    assert all(torch.equal(saved[name], tensor) for name, tensor in traced.named())
    assert saved["gradient.attention.1"].shape == (3, 4, 12, 12)


def test_what_is_refused(make_model: Callable[..., nn.Module], ids: Tensor) -> None:
    model: Any = make_model(dim=32)
    with pytest.raises(UserError, match="has 13 tokens; this model takes 1 to 12"):
        trace(model, torch.zeros(1, 13, dtype=torch.int64))
    with pytest.raises(UserError, match="token id 29; this model's are 0 to 28"):
        trace(model, torch.tensor([[29]]))
    with pytest.raises(UserError, match="a function of the logits, or 'loss'; got 'los'"):
        trace(model, ids, gradient_of="los")
    with pytest.raises(UserError, match="two tokens or more"):
        trace(model, ids[:, :1], gradient_of="loss")
    prepare_for_inference(model, "int8")
    assert close(trace(model, ids).logits, model(ids))
    with pytest.raises(UserError, match="no gradient flows through quantized weights"):
        trace(model, ids, gradient_of="loss")


def test_a_model_of_another_make(ids: Tensor) -> None:
    other: Any = nn.Linear(2, 2)
    other.config = type("Config", (), {"params": type("P", (), {"max_seq_len": 12}), "vocab_size": 29})
    with pytest.raises(UserError, match="Linear has no `transformer` with `blocks`"):
        trace(other, ids)
