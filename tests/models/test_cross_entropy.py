"""The chunked loss against F.cross_entropy."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from slm.models.kernels.cross_entropy import cross_entropy_
from slm.models.kernels.library import library
from slm.models.modules import fused
from slm.models.modules.losses import CrossEntropy

B, T, C, V, PADDED = 2, 5, 8, 13, 16


@dataclass
class Case:
    hidden: Tensor
    head: nn.Parameter
    labels: Tensor


@pytest.fixture(params=["kernel", "torch"], autouse=True)
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the C kernel and by torch's operations alike."""
    if request.param == "torch":
        monkeypatch.setattr(fused, "has_cross_entropy", lambda *_: False)
    elif library() is None:
        pytest.skip("no C compiler: there is no kernel to test")


@pytest.fixture
def case() -> Case:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(V, (B, T), generator=generator)
    labels[0, 1] = labels[1, 3] = labels[1, 4] = -100
    hidden = torch.randn(B, T, C, generator=generator).requires_grad_()
    return Case(hidden, nn.Parameter(torch.randn(PADDED, C, generator=generator)), labels)


def loss_and_gradients(
    case: Case, plain: bool, ignore_index: int = -100, softcap: float | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    if plain:
        logits = (case.hidden @ case.head.T)[..., :V]
        logits = logits if softcap is None else softcap * (logits / softcap).tanh()
        nll = cross_entropy(logits.flatten(0, 1), case.labels.flatten(), reduction="sum", ignore_index=ignore_index)
    else:
        nll = CrossEntropy(ignore_index, softcap)(case.hidden, case.head, case.labels, V)
    return nll, *torch.autograd.grad(nll * 0.37, (case.hidden, case.head))


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("rows", [1, 3, 5, 9, 10, 128])
def test_equals_plain_cross_entropy_at_every_chunk_size(
    case: Case, monkeypatch: pytest.MonkeyPatch, rows: int, softcap: float | None
) -> None:
    """Value and both gradients, scaled by what comes from above, wherever the chunks' borders fall."""
    monkeypatch.setattr(fused, "_CHUNK_ELEMENTS", 1)
    monkeypatch.setattr(fused, "_CHUNK_BYTES", 1)
    monkeypatch.setattr(fused, "_MIN_CHUNK_ROWS", rows)
    results = (loss_and_gradients(case, plain, softcap=softcap) for plain in (False, True))
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)


def test_padding_rows_have_no_probability_and_no_gradient(case: Case) -> None:
    """However large their logits: the rows are neither scored nor learnt."""
    before = loss_and_gradients(case, False)
    with torch.no_grad():
        case.head[V:] = 100.0
    after = loss_and_gradients(case, False)
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])
    assert not after[2][V:].any()


def test_under_bf16_autocast(case: Case) -> None:
    """As near to fp32 as bf16 products are, with gradients in the parameters' own precision."""
    plain = loss_and_gradients(case, True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = loss_and_gradients(case, False)
    assert [tensor.dtype for tensor in ours] == [torch.float32] * 3
    for mine, exact in zip(ours, plain, strict=True):
        assert (mine - exact).norm() / exact.norm() < 0.01


def test_all_ignored_is_zero_with_zero_gradients(case: Case) -> None:
    case.labels.fill_(-100)
    assert all(torch.equal(tensor, torch.zeros_like(tensor)) for tensor in loss_and_gradients(case, False))


def test_an_ignore_index_of_ones_own_goes_beside_the_datas(case: Case) -> None:
    """Windows mark their tail with -100 whatever the loss is set to; it was then taken for a token and crashed."""
    case.labels[0, 0] = 3
    ours = loss_and_gradients(case, False, ignore_index=3)
    case.labels[case.labels == 3] = -100
    for mine, plain in zip(ours, loss_and_gradients(case, True), strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-5, atol=1e-6)


class CountedProducts(TorchDispatchMode):
    """Counts the matrix products that run inside it."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket._qualified_op_name in ("aten::mm", "aten::addmm", "aten::addmm_")
        return func(*args, **(kwargs or {}))


def test_makes_only_the_products_that_are_asked_for(case: Case) -> None:
    """Logits, the hidden states' gradient, the head's: three in training, two for a frozen head, one in validation.

    Under no_grad the head's gradient was made all the same, since autograd says that a parameter needs it.
    """

    def products() -> int:
        with CountedProducts() as counted:
            CrossEntropy()(case.hidden, case.head, case.labels, V)
        return counted.count

    assert products() == 3
    with torch.no_grad():
        assert products() == 1
    case.head.requires_grad_(False)
    assert products() == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("vocab", [1, 15, 16, 17, 1000])
@pytest.mark.parametrize("softcap", [None, 5.0])
def test_a_row_is_that_of_double_precision(vocab: int, softcap: float | None, dtype: torch.dtype) -> None:
    """Fresh numbers each time, some of them huge: the kernel computes in fp32 and rounds once, at the end."""
    if not fused.has_cross_entropy(torch.device("cpu"), dtype):
        pytest.skip("of the kernel")
    logits = (torch.randn(7, vocab + 9) * torch.tensor([[0.1, 1, 10, 100, 1e4, 1, 1]]).T).to(dtype)
    labels = torch.randint(vocab, (7,))
    labels[5] = -1
    exact = logits.double()[:, :vocab].requires_grad_()
    bent = exact if softcap is None else softcap * (exact / softcap).tanh()
    nll = cross_entropy(bent, labels, reduction="none", ignore_index=-1)
    nll.sum().backward()
    found = cross_entropy_(logits, labels, vocab, softcap, with_gradient=True)
    torch.testing.assert_close(found, nll.detach().float(), rtol=1e-5, atol=1e-5)
    assert exact.grad is not None
    tolerance = 4e-3 if dtype == torch.bfloat16 else 2e-6
    torch.testing.assert_close(logits[:, :vocab].double(), exact.grad, rtol=tolerance, atol=2e-6)
    assert not logits[:, vocab:].any()


def test_a_graph_that_is_kept_can_be_gone_through_again(case: Case) -> None:
    """The head's gradient is scaled where it lies; asked for twice, it was once scaled twice."""
    nll = CrossEntropy()(case.hidden, case.head, case.labels, V) * 0.37
    first = torch.autograd.grad(nll, (case.hidden, case.head), retain_graph=True)
    second = torch.autograd.grad(nll, (case.hidden, case.head))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(nll, (case.hidden, case.head))


def test_a_label_that_is_no_token_is_refused(case: Case) -> None:
    case.labels[0, 0] = PADDED
    with pytest.raises((IndexError, RuntimeError)):
        CrossEntropy()(case.hidden, case.head, case.labels, V)


@pytest.mark.serial
@pytest.mark.nightly
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc")
def test_memory_over_the_hidden_states(request: pytest.FixtureRequest) -> None:
    """Under 150 MB at GPT-2's vocabulary and 4 x 1,024 tokens, beside the gradients that stay (all logits: 824 MB)."""
    if "torch" in request.node.name:
        pytest.skip("the bound is the kernel's")
    if "AVX512" not in torch.backends.cpu.get_cpu_capability():
        pytest.skip("products of bf16 would take a quarter of an hour")
    peak = subprocess.run([sys.executable, "-c", PEAK], check=True, capture_output=True, text=True).stdout
    assert float(peak) < 150


PEAK = """
import gc, re, torch
from pathlib import Path
from slm.models.modules.losses import CrossEntropy

def read(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1)) / 1e3 * 1.024

def step(hidden, head, labels):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        nll = CrossEntropy()(hidden, head, labels, head.shape[0])
    nll.backward()

def case(tokens, vocab):
    head = torch.nn.Parameter(torch.ones(vocab, 768))
    return torch.ones(tokens, 768, requires_grad=True), head, torch.ones(tokens, dtype=torch.int64)

step(*case(256, 512))  # what is loaded and kept once
large = case(4 * 1024, 50304)
gc.collect()
Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
before = read("VmRSS")
step(*large)
gradients = sum(tensor.grad.nbytes for tensor in large[:2]) / 1e6
print(read("VmHWM") - before - gradients)
"""
