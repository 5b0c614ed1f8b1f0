"""LoRA: nothing at the start, a dense update in effect, a plain model when merged."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from slm.errors import UserError
from slm.models.contract import build_model
from slm.models.modules.lora import LoraLinear, add_lora, base_names, merged_state
from slm.training.optim.parameter_groups import parameter_groups


def adapted(model: nn.Module, trained: bool = True, **settings: Any) -> nn.Module:
    """`model` with LoRA; `trained`: with updates as large as the weights."""
    model = copy.deepcopy(model)
    add_lora(model, **{"rank": 4, "scale": 2.0, **settings})
    if trained:
        draw = torch.Generator().manual_seed(2)
        for layer in model.modules():
            if isinstance(layer, LoraLinear):
                nn.init.normal_(layer.lora_b, std=0.3, generator=draw)
    return model


@pytest.mark.parametrize(
    "shape", [{}, {"position": "rotary", "mlp": "glu", "n_kv_heads": 2, "tie": False, "norm": "rms_norm"}]
)
def test_merged_is_a_plain_model_of_the_same_logits(make_model: Any, ids: torch.Tensor, shape: Any) -> None:
    base = make_model(**shape)
    model = adapted(base)
    plain = build_model(base.config).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    plain.load_state_dict(merged_state(model))  # strict: its very names
    assert torch.allclose(plain(ids), model(ids), atol=1e-5, rtol=1e-5)
    assert (plain(ids) - base(ids)).abs().max() > 0.1, "the update does nothing"
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items()), "merged in place"


def test_it_begins_as_the_model_it_adapts(make_model: Any, ids: torch.Tensor) -> None:
    """B is zeros. To rounding, and not to the bit: an MLP that has no adapter may run by a kernel of its own."""
    base = make_model()
    torch.testing.assert_close(adapted(base, trained=False)(ids), base(ids), rtol=1e-6, atol=1e-6)
    assert base_names(base) == set()


def test_gradients_are_those_of_the_dense_update(make_model: Any, ids: torch.Tensor) -> None:
    """With G the gradient of the merged matrix W + scale B A, the chain rule: dB = scale G A^T, dA = scale B^T G."""
    base = make_model().double()
    model = adapted(base).double()
    plain = build_model(base.config).eval().double()
    plain.load_state_dict(merged_state(model))
    for one in (model, plain):
        one(ids).logsumexp(dim=-1).square().sum().backward()
    dense = dict(plain.named_parameters())
    layers = {path: layer for path, layer in model.named_modules() if isinstance(layer, LoraLinear)}
    assert len(layers) == 2 * 4
    for path, layer in layers.items():
        gradient = dense[f"{path}.weight"].grad
        assert gradient is not None
        assert torch.allclose(layer.lora_b.grad, 2.0 * gradient @ layer.lora_a.t(), rtol=1e-9), path  # type: ignore[arg-type]
        assert torch.allclose(layer.lora_a.grad, 2.0 * layer.lora_b.t() @ gradient, rtol=1e-9), path  # type: ignore[arg-type]
        assert layer.weight.grad is None


def test_only_the_update_is_trained_and_kept_by_the_optimizer(make_model: Any, ids: torch.Tensor) -> None:
    """Adam holds two numbers a trained one: 2 r (in + out) a layer, whatever the model's size."""
    model = adapted(make_model(), trained=False, dropout=0.5, targets=["qkv"], also_train=["final_norm"])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.1), lr=0.1)
    for _ in range(2):  # at the first step A's gradient is zero, since B is
        model(ids).square().sum().backward()
        optimizer.step()
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    qkv = {f"transformer.blocks.{i}.attention.qkv.lora_{half}" for i in (0, 1) for half in "ab"}
    assert moved == qkv | {"transformer.final_norm.weight", "transformer.final_norm.bias"}
    assert base_names(model) == before.keys() - moved
    held = sum(t.numel() for state in optimizer.state.values() for name, t in state.items() if name != "step")
    assert held == 2 * (2 * 4 * (16 + 48) + 2 * 16)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"targets": ["qvk"]},
            "adapter.targets: the model has no 'qvk'; did you mean 'qkv'? (it has: down_proj, out_pr",
        ),
        ({"targets": ["output_projection"]}, "adapter.targets: the model has no 'output_projection'"),
        ({"also_train": ["tokens"]}, "adapter.also_train: the model has no 'tokens'"),
    ],
)
def test_names_of_nothing_are_refused(make_model: Any, settings: Any, message: str) -> None:
    with pytest.raises(UserError) as refused:
        adapted(make_model(tie=False), **settings)
    assert message in str(refused.value)
