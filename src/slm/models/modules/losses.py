"""Cross-entropy straight from hidden states, never holding all logits at once."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from slm.models.contract import CausalLM, compute_dtype
from slm.models.modules.fused import loss_chunks, nll_and_gradient
from slm.registry import register_loss

_HEAD_BLOCK_ELEMENTS = 2**20  # of the head's gradient, made at a time before it is added up
_THROUGH_HEAD_ROWS = 512


@register_loss("cross_entropy")
class CrossEntropy(nn.Module):
    """Negative log-likelihood of the labels, summed over the positions that have one."""

    def __init__(self, ignore_index: int = -100, softcap: float | None = None) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.softcap = softcap

    def forward(self, hidden: Tensor, head_weight: Tensor, labels: Tensor, vocab_size: int) -> Tensor:
        """Summed NLL in nats, a scalar in fp32: in value and gradient
        ``F.cross_entropy((hidden @ head_weight.T)[..., :vocab_size], labels, reduction="sum")``, with the logits bent
        to ``softcap * tanh(logits / softcap)`` where there is a soft cap. Shapes are (B, T, C), (V', C) and (B, T);
        labels are negative or `ignore_index` where nothing is to be learnt."""
        labels = labels.masked_fill(labels == self.ignore_index, -1).flatten()
        rows, with_gradient = hidden.flatten(0, -2), torch.is_grad_enabled()
        return _ChunkedCrossEntropy.apply(rows, head_weight, labels, vocab_size, self.softcap, with_gradient)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """The gradient of a summed NLL with respect to the logits is ``softmax - onehot``, known as soon as they are, so
    the forward pass makes those of `hidden` and `head_weight` too and drops the chunk's logits (the idea of
    Liger-Kernel's fused linear cross-entropy, Hsu et al. 2024). Backward only scales them."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head_weight: Tensor, labels: Tensor, vocab_size: int, cap: float | None, grad: bool
    ) -> Tensor:
        # needs_input_grad alone says yes under no_grad too, which would cost validation two products more
        needs_hidden, needs_weight = (needed and grad for needed in ctx.needs_input_grad[:2])
        dtype = compute_dtype(hidden)
        with torch.autocast(hidden.device.type, enabled=False):
            weight = head_weight.to(dtype)
            grad_hidden = torch.empty_like(hidden, dtype=dtype) if needs_hidden else None
            grad_weight = _HeadGradient(head_weight) if needs_weight else None
            total = torch.zeros((), dtype=torch.float32, device=hidden.device)
            chunks = loss_chunks(len(hidden), weight)
            room = weight.new_empty(max((chunk.stop - chunk.start for chunk in chunks), default=0), weight.shape[0])
            for chunk in chunks:
                rows = hidden[chunk].to(dtype)
                logits = torch.mm(rows, weight.t(), out=room[: len(rows)])
                wanted = needs_hidden or needs_weight
                nll, grad_logits = nll_and_gradient(logits, labels[chunk], vocab_size, cap, wanted)
                total += nll.sum()
                if grad_hidden is not None:
                    torch.mm(grad_logits, weight, out=grad_hidden[chunk])
                if grad_weight is not None:
                    grad_weight.add(grad_logits, rows)
        ctx.gradients = grad_hidden, None if grad_weight is None else grad_weight.total
        ctx.hidden_dtype = hidden.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("backward through this loss a second time; the first needs retain_graph=True")
        (grad_output,) = grad_outputs
        grad_hidden, grad_weight = ctx.gradients
        if grad_hidden is not None:
            grad_hidden = grad_hidden.to(ctx.hidden_dtype) * grad_output.to(ctx.hidden_dtype)
        if grad_weight is not None:
            scale = grad_output.to(grad_weight.dtype)
            kept = torch._C._autograd._get_current_graph_task_keep_graph()
            # scaled where it lies, where nobody else will ask for it: of a large head a copy is the size of a model
            grad_weight = grad_weight * scale if kept else grad_weight.mul_(scale)
            if not kept:
                ctx.gradients = None
        return grad_hidden, grad_weight, None, None, None, None


def token_log_probs(
    hidden: Tensor, head_weight: Tensor, labels: Tensor, vocab_size: int, softcap: float | None = None
) -> Tensor:
    """Log-probability of every label, (B, T) in nats and fp32; 0 where there is none. What `CrossEntropy` sums up, with
    a gradient for each: for losses that are no sum over tokens. The logits are made once more on the way back, so that
    they are never held. Labels are negative for none."""
    places = (labels.flatten() >= 0).nonzero().squeeze(1)
    rows, of_rows = hidden.flatten(0, -2)[places], labels.flatten()[places]
    found: Tensor = _TokenLogProbs.apply(rows, head_weight, of_rows, vocab_size, softcap)
    return torch.zeros(labels.numel(), device=hidden.device).index_put((places,), found).view_as(labels)


class _TokenLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, head: Tensor, labels: Tensor, vocab_size: int, softcap: float | None) -> Tensor:
        ctx.dtype = compute_dtype(rows)
        ctx.vocab_size, ctx.softcap = vocab_size, softcap
        ctx.save_for_backward(rows, head, labels)
        found = torch.empty(len(rows), dtype=torch.float32, device=rows.device)
        with torch.autocast(rows.device.type, enabled=False):
            rows, weight = rows.to(ctx.dtype), head.to(ctx.dtype)
            for chunk in loss_chunks(len(rows), weight):
                nll, _ = nll_and_gradient(rows[chunk] @ weight.t(), labels[chunk], vocab_size, softcap, False)
                found[chunk] = -nll
        return found

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        rows, head_weight, labels = ctx.saved_tensors
        needs_rows, needs_weight = ctx.needs_input_grad[:2]
        grad_rows = torch.zeros_like(rows) if needs_rows else None
        grad_weight = _HeadGradient(head_weight) if needs_weight and len(rows) else None
        of_nll = -grad_outputs[0].to(ctx.dtype)[:, None]
        inputs, weight = rows.to(ctx.dtype), head_weight.to(ctx.dtype)
        for chunk in loss_chunks(len(rows), weight):
            logits = inputs[chunk] @ weight.t()
            gradient = nll_and_gradient(logits, labels[chunk], ctx.vocab_size, ctx.softcap, True)[1].mul_(of_nll[chunk])
            if grad_rows is not None:
                grad_rows[chunk] = gradient @ weight
            if grad_weight is not None:
                grad_weight.add(gradient, inputs[chunk])
        return grad_rows, None if grad_weight is None else grad_weight.total, None, None, None


def has_plain_head(model: nn.Module) -> bool:
    """`model.head_weight` is all that makes logits of hidden states."""
    return getattr(model, "inference_head", None) is None


def log_probs_through_head(model: CausalLM, hidden: Tensor, labels: Tensor) -> Tensor:
    """What `token_log_probs` gives, of a head that is no plain matrix, such as a quantized one; without a gradient."""
    rows, targets = hidden.flatten(0, -2), labels.flatten()
    places = (targets >= 0).nonzero().squeeze(1)
    found = torch.zeros(len(targets), device=hidden.device)
    for chosen in places.split(_THROUGH_HEAD_ROWS):
        logits = model.head(rows[chosen]).float()
        found[chosen] = -cross_entropy(logits, targets[chosen], reduction="none")
    return found.view_as(labels)


class _HeadGradient:
    """The head's gradient, summed over chunks of rows in the weight's own dtype."""

    def __init__(self, head_weight: Tensor) -> None:
        self.total = torch.empty_like(head_weight)
        self._begun = False
        # cuBLAS adds halves up in fp32, in one go; PyTorch has offered it since 2.8
        nvidia = head_weight.is_cuda and torch.version.hip is None
        self._adds_halves = nvidia and hasattr(torch.ops.aten.addmm, "dtype_out")

    def add(self, grad_logits: Tensor, rows: Tensor) -> None:
        """``grad_logits^T rows``, of (n, V') and (n, C)."""
        if self.total.dtype == rows.dtype:
            # beta = 0: what the memory held before, nan even, does not count
            torch.addmm(self.total, grad_logits.t(), rows, beta=int(self._begun), out=self.total)
        elif self._adds_halves and self.total.dtype == torch.float32:
            add = torch.ops.aten.addmm.dtype_out
            add(self.total, grad_logits.t(), rows, torch.float32, beta=int(self._begun), out=self.total)
        else:
            step = max(1, _HEAD_BLOCK_ELEMENTS // rows.shape[1])
            for start in range(0, len(self.total), step):
                block = slice(start, start + step)
                product = grad_logits[:, block].t() @ rows
                self.total[block].add_(product) if self._begun else self.total[block].copy_(product)
        self._begun = True
