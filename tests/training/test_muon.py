"""Muon against torch's own, its AdamW half against torch's, and how a model's parameters are dealt out."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from slm.models.config import ModelConfig
from slm.models.contract import build_model
from slm.training.optim import muon
from slm.training.optim.muon import Muon, orthogonalized
from slm.training.optim.parameter_groups import leave_finding, parameter_groups


def tiny_model(**transformer: Any) -> nn.Module:
    torch.manual_seed(0)
    shape = {
        "name": "gpt",
        "params": {"max_seq_len": 8, "vocab_size": 20},
        "modules": {
            "transformer": {"dim": 16, "n_layers": 2, "n_heads": 2, **transformer},
            "output_projection": {"tie_weights": False},
        },
    }
    return build_model(ModelConfig.from_dict(shape))


def with_gradients(model: nn.Module, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=draw)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_singular_values_come_near_one(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of lying, standing and square matrices of very unlike size, each with the singular vectors it had."""
    monkeypatch.setattr(muon, "_dtype", lambda _: dtype)
    torch.manual_seed(0)
    matrices = [torch.randn(shape) * 10.0**i for i, shape in enumerate([(8, 24), (24, 8), (8, 8), (24, 8), (5, 7)])]
    for given, found in zip(matrices, orthogonalized(matrices, 5), strict=True):
        assert found.shape == given.shape
        u, s, v = torch.linalg.svd(given, full_matrices=False)
        inside = u.mT @ found @ v.mT
        large = s > 0.2 * s.max()  # five steps do not lift the smallest all the way
        assert ((inside.diagonal()[large] > 0.6) & (inside.diagonal()[large] < 1.3)).all()
        assert (inside - torch.diag(inside.diagonal())).abs().max() < (0.05 if dtype == torch.bfloat16 else 1e-4)


def test_hidden_matrices_step_as_with_torchs_muon() -> None:
    """To what batching rounds otherwise in bf16; torch's is the same optimizer, one matrix at a time."""
    ours, theirs = tiny_model(), tiny_model()
    mine = Muon(parameter_groups(ours, 0.1, by_role=True), lr=0.02, momentum=0.9)
    hidden = list(parameter_groups(theirs, 0.1, by_role=True)[0]["params"])
    plain = torch.optim.Muon(hidden, lr=0.02, weight_decay=0.1, momentum=0.9)
    for seed in range(3):
        with_gradients(ours, seed)
        with_gradients(theirs, seed)
        mine.step()
        # theirs sums gradients, ours averages them: the update, being normalised, is the same
        plain.step()
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        if any(b is p for p in hidden):
            assert (a - b).abs().max() < 2e-3, name


def test_the_rest_steps_as_with_adamw() -> None:
    ours, theirs = tiny_model(), tiny_model()
    mine = Muon(parameter_groups(ours, 0.1, by_role=True), adam_lr=0.01, betas=(0.8, 0.9), eps=1e-9)
    _, table, vector = parameter_groups(theirs, 0.1, by_role=True)
    plain = torch.optim.AdamW([table, vector], lr=0.01, betas=(0.8, 0.9), eps=1e-9)
    for seed in range(3):
        with_gradients(ours, seed)
        with_gradients(theirs, seed)
        mine.step()
        plain.step()
    others = {id(p) for group in (table, vector) for p in group["params"]}
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        if id(b) in others:
            assert torch.equal(a, b), name


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_a_step_that_is_told_of_a_bad_gradient_changes_nothing(bad: float) -> None:
    """By a tensor, as on a GPU; and the steps before and after are what they are without it."""
    told, plain = tiny_model(), tiny_model()
    optimizers = [Muon(parameter_groups(m, 0.1, by_role=True), adam_lr=0.01, fused=True) for m in (told, plain)]
    assert optimizers[0]._step_supports_amp_scaling
    for seed, value in ((0, None), (1, bad), (2, None)):
        with_gradients(told, seed)
        if value is not None:
            told.transformer.blocks[0].mlp.up_proj.weight.grad[0, 0] = value  # type: ignore
        leave_finding(optimizers[0], torch.stack([p.grad.norm() for p in told.parameters()]).norm())  # type: ignore
        before = copy.deepcopy((told.state_dict(), optimizers[0].state_dict()["state"]))
        optimizers[0].step()
        if value is None:
            with_gradients(plain, seed)
            optimizers[1].step()
        else:
            after = told.state_dict(), optimizers[0].state_dict()["state"]
            torch.testing.assert_close(after, before, rtol=0, atol=0)
        assert all(torch.equal(a, b) for a, b in zip(told.parameters(), plain.parameters(), strict=True))


def test_roles() -> None:
    """Linear layers are hidden; embeddings, positions and the head, tied or not, are tables."""
    model = tiny_model()
    names = {id(p): name for name, p in model.named_parameters()}
    hidden, table, vector = (
        {names[id(p)] for p in group["params"]} for group in parameter_groups(model, 0.1, by_role=True)
    )
    assert table == {"token_embedding.weight", "position_embedding.weight", "output_projection.weight"}
    assert all(name.startswith("transformer.blocks.") and name.endswith("weight") for name in hidden)
    assert all("norm" in name or name.endswith("bias") for name in vector)
    assert len(hidden) + len(table) + len(vector) == len(names)


def test_groups_without_roles_are_refused() -> None:
    with pytest.raises(ValueError, match="role"):
        Muon([{"params": [nn.Parameter(torch.ones(2, 2))]}])


def test_a_loaded_state_goes_on_alike() -> None:
    """Also AdamW's half, which once went on with the state it was made with."""
    first, second = tiny_model(), tiny_model()
    optimizers = [Muon(parameter_groups(m, 0.1, by_role=True), adam_lr=0.01) for m in (first, second)]
    with_gradients(first, 0)
    optimizers[0].step()
    second.load_state_dict(first.state_dict())
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    for model, optimizer in zip((first, second), optimizers, strict=True):
        with_gradients(model, 1)
        optimizer.step()
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.nightly
def test_a_run_with_muon_is_resumed_bit_for_bit(train_tiny: Any, run_cli: Any) -> None:
    whole = train_tiny("whole", "optimizer=muon", "model.modules.transformer.zero_init=true")
    part = train_tiny("part", "optimizer=muon", "model.modules.transformer.zero_init=true", "stop_after=2")
    assert run_cli("train", "resume=part").status == 0
    a, b = (weights(run / "checkpoints/last.ckpt") for run in (whole, part))
    assert all(torch.equal(a[name], b[name]) for name in a)


def weights(file: Any) -> dict[str, Tensor]:
    found: dict[str, Tensor] = torch.load(file, weights_only=True)["state_dict"]
    return found


def test_zero_init_makes_every_block_the_identity() -> None:
    """Forward alone; the gradient of the projections is not 0, so they learn."""
    model: Any = tiny_model(zero_init=True)
    x = torch.randn(2, 8, 16)
    assert all(torch.equal(block(x, x), x) for block in model.transformer.blocks)
    model(torch.randint(20, (2, 8))).square().sum().backward()
    assert all(block.mlp.down_proj.weight.grad.abs().max() > 0 for block in model.transformer.blocks)
