"""The MLP's non-linearity and projection by a C kernel, against PyTorch in double precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from slm.models.config import TransformerConfig
from slm.models.kernels import activation as kernel
from slm.models.kernels.library import library
from slm.models.modules.fused import kind_of
from slm.models.modules.transformer import MLP, GatedMLP
from slm.registry import ACTIVATIONS, MLPS

BF16 = torch.bfloat16
needs_kernels = pytest.mark.skipif(library() is None, reason="this machine has no C compiler for the kernels")


def make_mlp(**changed: Any) -> Any:
    """Of widths 24 and 48, with biases."""
    config = TransformerConfig(**{"dim": 24, "n_layers": 1, "n_heads": 1, "mlp_dim": 48, **changed})
    return MLPS.get(config.mlp)(config)


def plain(mlp: Any, x: Tensor) -> Tensor:
    """By its own parts, one after another."""
    if isinstance(mlp, GatedMLP):
        return mlp.down_proj(mlp.activation(mlp.gate_proj(x)) * mlp.up_proj(x))
    assert isinstance(mlp, MLP)
    return mlp.down_proj(mlp.activation(mlp.up_proj(x)))


def gradients(y: Tensor, mlp: Any, x: Tensor, grad: Tensor) -> list[Tensor]:
    return [y, *torch.autograd.grad(y, [x, *mlp.parameters()], grad.to(y.dtype))]


@needs_kernels
@pytest.mark.parametrize("kind", ["mlp", "glu"])
@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu", "relu2", "silu"])
@pytest.mark.parametrize("dtype", [torch.float32, BF16], ids=["fp32", "bf16"])
def test_values_and_gradients(kind: str, activation: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of double precision, to the rounding of a few operations."""
    calls = []
    run = kernel.activate
    monkeypatch.setattr(kernel, "activate", lambda *given: calls.append(given) or run(*given))
    mlp = make_mlp(mlp=kind, activation=activation).to(dtype)
    x = (3 * torch.randn(2, 5, 24)).to(dtype).requires_grad_()
    grad = torch.randn(2, 5, 24)
    found = gradients(mlp(x), mlp, x, grad)
    assert len(calls) == 2
    exact = make_mlp(mlp=kind, activation=activation).double()
    exact.load_state_dict(mlp.state_dict())
    x64 = x.detach().double().requires_grad_()
    wanted = gradients(plain(exact, x64), exact, x64, grad.to(dtype))
    tolerance = 1e-6 if dtype == torch.float32 else 1.5e-2
    for ours, right in zip(found, wanted, strict=True):
        assert ours.dtype == dtype
        assert (ours - right).norm() <= tolerance * right.norm()


@needs_kernels
@pytest.mark.parametrize("shape", [(24,), (0, 24), (2, 0, 24), (2, 3, 1, 24), (3, 24)])
@pytest.mark.parametrize("kind", ["mlp", "glu"])
def test_any_number_of_rows_in_any_order(kind: str, shape: tuple[int, ...]) -> None:
    """One, none, several dimensions of them; of the gradient the memory's order does not count."""
    mlp = make_mlp(mlp=kind)
    x = torch.randn(shape, requires_grad=True)
    grad = torch.randn(shape[::-1]).permute(*range(len(shape))[::-1])
    found = gradients(mlp(x), mlp, x, grad)
    for ours, theirs in zip(found, gradients(plain(mlp, x), mlp, x, grad), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@needs_kernels
def test_slopes_over_all_sizes_of_numbers() -> None:
    """In the tails, where a sigmoid's distance to 1 is lost if it is subtracted; nan stays nan."""
    x = torch.cat([torch.linspace(-100, 100, 2000), torch.linspace(-8, 8, 1999), torch.tensor([float("nan")])])
    for name in ACTIVATIONS.names():
        activation = ACTIVATIONS.get(name)()
        kind = kind_of(activation)
        if kind is None:
            continue
        x64 = x.double().requires_grad_()
        (wanted,) = torch.autograd.grad(activation(x64).sum(), x64)
        y, slope = torch.empty_like(x), torch.ones_like(x)
        kernel.activate(kind, x, None, y, slope)
        torch.testing.assert_close(slope[:-1].double(), wanted[:-1], rtol=1e-6, atol=1e-6)
        assert y[-1].isnan()
        assert slope[-1].isnan() or name in ("relu", "relu2")


@needs_kernels
def test_under_autocast_in_its_dtype_and_nothing_else_is_kept() -> None:
    """The weights' gradients are fp32 as the weights are; of two tensors as wide as the MLP one is kept."""
    mlp = make_mlp()
    x = torch.randn(16, 24, requires_grad=True)
    kept: list[Tensor] = []
    with (
        torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t),
        torch.autocast("cpu", BF16),
    ):
        y = mlp(x)
    assert y.dtype == BF16
    assert [t.dtype for t in kept if t.shape == (16, 48)] == [BF16]
    found = gradients(y, mlp, x, torch.ones(16, 24))
    with torch.autocast("cpu", BF16):
        wanted = gradients(plain(mlp, x), mlp, x, torch.ones(16, 24))
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.dtype == theirs.dtype
        assert (ours - theirs).norm() <= 1e-2 * theirs.norm()


@needs_kernels
@pytest.mark.parametrize("frozen", ["up_proj", "down_proj", "up_proj down_proj", "down_proj.weight", "down_proj.bias"])
def test_what_is_frozen_has_no_gradient_and_the_rest_has_its_own(frozen: str) -> None:
    mlp = make_mlp()
    x = torch.randn(3, 24)
    for name, parameter in mlp.named_parameters():
        parameter.requires_grad_(not any(name.startswith(part) for part in frozen.split()))
    learnt = [p for p in mlp.parameters() if p.requires_grad]
    if not learnt:
        assert not mlp(x).requires_grad
        return
    found = torch.autograd.grad(mlp(x).sum(), learnt)
    wanted = torch.autograd.grad(plain(mlp, x).sum(), learnt)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@needs_kernels
@pytest.mark.parametrize("hook", ["forward", "forward_pre", "full_backward", "full_backward_pre"])
@pytest.mark.parametrize("watched", ["activation", "down_proj"])
def test_who_watches_a_part_sees_it_run(watched: str, hook: str) -> None:
    mlp = make_mlp()
    seen = []
    getattr(getattr(mlp, watched), f"register_{hook}_hook")(lambda *_: seen.append(1))
    mlp(torch.randn(2, 24, requires_grad=True)).sum().backward()
    assert seen == [1]


@needs_kernels
def test_a_part_of_another_class_runs_as_it_is() -> None:
    mlp = make_mlp()

    class Doubled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    x = torch.randn(2, 24)
    once = mlp(x)
    doubled = Doubled(48, 24)
    doubled.load_state_dict(mlp.down_proj.state_dict())
    mlp.down_proj = doubled
    torch.testing.assert_close(mlp(x), 2 * once)
