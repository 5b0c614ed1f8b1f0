"""The Triton kernel of the loss, and the loss by it, against double precision and PyTorch's own."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from slm.models.kernels.cross_entropy import cross_entropy_, has_cross_entropy
from slm.models.modules.losses import CrossEntropy, token_log_probs

CUDA = torch.device("cuda")


def test_there_is_a_kernel() -> None:
    """Else all that follows would test PyTorch's operations."""
    assert has_cross_entropy(CUDA, torch.bfloat16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("vocab", [1, 65, 4096, 4097, 50257])
@pytest.mark.parametrize("softcap", [None, 5.0])
def test_a_row_is_that_of_double_precision(vocab: int, softcap: float | None, dtype: torch.dtype) -> None:
    """Fresh numbers each time, some of them huge, in memory that is not the logits' own from end to end."""
    scale = torch.tensor([[0.1, 1, 10, 100, 1e4, 1, 1]], device=CUDA).T
    room = (torch.randn(7, vocab + 47, device=CUDA) * scale).to(dtype)
    logits = room[:, : vocab + 9]
    labels = torch.randint(vocab, (7,), device=CUDA)
    labels[5] = -1
    exact = logits.double()[:, :vocab].requires_grad_()
    bent = exact if softcap is None else softcap * (exact / softcap).tanh()
    nll = cross_entropy(bent, labels, reduction="none", ignore_index=-1)
    nll.sum().backward()
    beside = room[:, vocab + 9 :].clone()
    found = cross_entropy_(logits, labels, vocab, softcap, with_gradient=True)
    torch.testing.assert_close(found, nll.detach().float(), rtol=1e-5, atol=1e-5)
    assert exact.grad is not None
    tolerance = {torch.float32: 3e-5, torch.bfloat16: 4e-3, torch.float16: 5e-4}[dtype]
    torch.testing.assert_close(logits[:, :vocab].double(), exact.grad, rtol=tolerance, atol=2e-6)
    assert not logits[:, vocab:].any()
    assert torch.equal(room[:, vocab + 9 :], beside)


def test_a_label_that_is_no_token_is_not_passed_over() -> None:
    """No host waits to refuse it; what it touches is nan, and the step is left out and reported."""
    labels = torch.tensor([3, 15, 2], device=CUDA)
    logits = torch.randn(3, 20, device=CUDA)
    nll = cross_entropy_(logits, labels, 15, None, with_gradient=True)
    assert nll.isnan().tolist() == [False, True, False]
    assert logits[1, :15].isnan().all()
    assert logits[0].isfinite().all()


@pytest.mark.parametrize("softcap", [None, 15.0])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize(("rows", "vocab"), [(1, 50257), (700, 50257), (5000, 50257), (300, 65)])
def test_the_loss_and_its_gradients(rows: int, vocab: int, autocast: bool, softcap: float | None) -> None:
    """Against all logits at once in fp32, over several chunks and one; bf16 as near as its products are."""
    hidden = torch.randn(1, rows, 64, device=CUDA, requires_grad=True)
    head = torch.randn(-(-vocab // 64) * 64, 64, device=CUDA, requires_grad=True)
    labels = torch.randint(vocab, (1, rows), device=CUDA)
    labels[0, rows // 2 :: 7] = -100
    logits = (hidden @ head.T)[..., :vocab]
    logits = logits if softcap is None else softcap * (logits / softcap).tanh()
    plain = cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
    expected = [plain, *torch.autograd.grad(plain, (hidden, head))]
    with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
        nll = CrossEntropy(softcap=softcap)(hidden, head, labels, vocab)
    found = [nll, *torch.autograd.grad(nll, (hidden, head))]
    assert {tensor.dtype for tensor in found} == {torch.float32}
    for mine, exact in zip(found, expected, strict=True):
        assert (mine - exact).norm() <= (0.02 if autocast else 1e-5) * exact.norm() + 1e-6


def test_token_log_probs() -> None:
    hidden = torch.randn(3, 50, 32, device=CUDA, requires_grad=True)
    head = torch.randn(1024, 32, device=CUDA, requires_grad=True)
    labels = torch.randint(1000, (3, 50), device=CUDA)
    labels[1, 10:] = -100
    weight = torch.randn(3, 50, device=CUDA)
    chosen = (hidden @ head.T)[..., :1000].log_softmax(-1).gather(2, labels.clamp(min=0)[..., None]).squeeze(2)
    expected = chosen * (labels >= 0)
    found = token_log_probs(hidden, head, labels, 1000)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    of_found = torch.autograd.grad((found * weight).sum(), (hidden, head))
    of_expected = torch.autograd.grad((expected * weight).sum(), (hidden, head))
    for mine, exact in zip(of_found, of_expected, strict=True):
        assert (mine - exact).norm() < 1e-4 * exact.norm()


def test_memory_over_the_hidden_states() -> None:
    """Under 150 MB at GPT-2's vocabulary and 4 x 1,024 tokens, beside the gradients that stay (all logits: 824 MB)."""
    hidden = torch.randn(4, 1024, 768, device=CUDA, requires_grad=True)
    head = torch.randn(50304, 768, device=CUDA, requires_grad=True)
    labels = torch.randint(50257, (4, 1024), device=CUDA)
    has_cross_entropy(CUDA, torch.bfloat16)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with torch.autocast("cuda", torch.bfloat16):
        CrossEntropy()(hidden, head, labels, 50257).backward()
    assert hidden.grad is not None
    assert head.grad is not None
    gradients = hidden.grad.nbytes + head.grad.nbytes
    assert torch.cuda.max_memory_allocated() - before - gradients < 150e6
