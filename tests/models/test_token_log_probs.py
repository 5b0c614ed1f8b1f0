"""Log-probabilities of labels, token by token: value and gradient against plain PyTorch."""

from __future__ import annotations

import pytest
import torch

from slm.models.modules import fused
from slm.models.modules.losses import CrossEntropy, token_log_probs


@pytest.fixture(params=[None, 5.0])
def softcap(request: pytest.FixtureRequest) -> float | None:
    return request.param


def drawn(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(3, 50, 16, generator=draw, dtype=dtype)
    weight = torch.randn(40, 16, generator=draw, dtype=dtype)
    labels = torch.randint(37, (3, 50), generator=draw)
    labels[torch.rand(3, 50, generator=draw) < 0.3] = -100
    labels[2] = -100
    return hidden.requires_grad_(), weight.requires_grad_(), labels


def plain(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, softcap: float | None) -> torch.Tensor:
    logits = (hidden @ weight.t())[..., :37].double()
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    picked = logits.log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None]).squeeze(-1)
    return picked * (labels >= 0)


def test_each_label_has_its_own_gradient(softcap: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The squares of the rows' sums: no row's gradient is another's, and they are summed over several chunks."""
    monkeypatch.setattr(fused, "_MIN_CHUNK_ROWS", 7)
    monkeypatch.setattr(fused, "_CHUNK_BYTES", 1)
    monkeypatch.setattr(fused, "_CHUNK_ELEMENTS", 1)
    hidden, weight, labels = drawn()
    found = token_log_probs(hidden, weight, labels, 37, softcap)
    expected = plain(hidden, weight, labels, softcap)
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), expected, atol=1e-5)
    got = torch.autograd.grad(found.sum(1).square().sum(), (hidden, weight))
    wanted = torch.autograd.grad(expected.sum(1).square().sum(), (hidden, weight))
    for one, other in zip(got, wanted, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-4 * other.abs().max())


def test_their_sum_is_the_training_loss(softcap: float | None) -> None:
    hidden, weight, labels = drawn()
    loss = CrossEntropy(softcap=softcap)(hidden, weight, labels, 37)
    assert -token_log_probs(hidden, weight, labels, 37, softcap).sum().item() == pytest.approx(loss.item(), rel=1e-6)


def test_no_label_no_gradient_and_a_frozen_head() -> None:
    hidden, weight, labels = drawn()
    found = token_log_probs(hidden, weight.detach(), labels.fill_(-100), 37)
    found.sum().backward()
    assert not found.any()
    assert hidden.grad is not None
    assert not hidden.grad.any()
