"""Cross-entropy straight from hidden states, never holding all logits at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from slm.registry import register_loss

# Logits held at a time. 2^22 fp32 numbers are 16 MiB: they stay near the last-level cache on a CPU.
_CHUNK_ELEMENTS = 2**22
_MIN_CHUNK_ROWS = 128


@register_loss("cross_entropy")
class CrossEntropy(nn.Module):
    """Negative log-likelihood of the labels, summed over the positions that have one."""

    def __init__(self, ignore_index: int = -100, softcap: float | None = None) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.softcap = softcap

    def forward(self, hidden: Tensor, head_weight: Tensor, labels: Tensor, vocab_size: int) -> Tensor:
        """Summed NLL in nats, a scalar in fp32.

        Equal, in value and gradient, to
        ``F.cross_entropy((hidden @ head_weight.T)[..., :vocab_size], labels, reduction="sum")``, with
        the logits bent to ``softcap * tanh(logits / softcap)`` where there is a soft cap.

        Args:
            hidden: (B, T, C), what the model gives before its head.
            head_weight: (V', C) with V' >= vocab_size; rows from `vocab_size` on are padding.
            labels: (B, T) int64; negative or `ignore_index` where nothing is to be learnt.
            vocab_size: number of real tokens V.
        """
        labels = labels.masked_fill(labels == self.ignore_index, -1).flatten()
        nll: Tensor = _ChunkedCrossEntropy.apply(
            hidden.flatten(0, -2), head_weight, labels, vocab_size, self.softcap, torch.is_grad_enabled()
        )
        return nll


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Head, softmax and loss in one pass over chunks of rows.

    The gradient of a summed NLL with respect to the logits is ``softmax - onehot``, known as soon
    as the logits are, so the forward pass already makes the gradients of `hidden` and
    `head_weight` and drops the chunk's logits (the idea of Liger-Kernel's fused linear
    cross-entropy, Hsu et al. 2024). Backward only scales them.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head_weight: Tensor,
        labels: Tensor,
        vocab_size: int,
        softcap: float | None,
        with_gradient: bool,
    ) -> Tensor:
        # needs_input_grad alone says yes under no_grad too, which would cost validation two products more
        needs_hidden, needs_weight = (needed and with_gradient for needed in ctx.needs_input_grad[:2])
        device = hidden.device.type
        autocast = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if autocast else hidden.dtype
        with torch.autocast(device, enabled=False):
            rows, weight = hidden.to(dtype), head_weight.to(dtype)
            grad_hidden = torch.empty_like(rows) if needs_hidden else None
            grad_weight = torch.zeros_like(head_weight) if needs_weight else None
            total = torch.zeros((), dtype=torch.float32, device=hidden.device)
            n_rows = max(_MIN_CHUNK_ROWS, _CHUNK_ELEMENTS // weight.shape[0])
            for start in range(0, rows.shape[0], n_rows):
                chunk = slice(start, start + n_rows)
                nll, grad_logits = _nll_and_gradient(
                    rows[chunk], weight, labels[chunk], vocab_size, softcap, needs_hidden or needs_weight
                )
                total += nll
                if grad_hidden is not None:
                    torch.mm(grad_logits, weight, out=grad_hidden[chunk])
                if grad_weight is not None:
                    if grad_weight.dtype == dtype:
                        grad_weight.addmm_(grad_logits.t(), rows[chunk])
                    else:
                        grad_weight += grad_logits.t() @ rows[chunk]
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.hidden_dtype = hidden.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad_output,) = grad_outputs
        grad_hidden, grad_weight = ctx.saved_tensors
        if grad_hidden is not None:
            grad_hidden = grad_hidden.to(ctx.hidden_dtype) * grad_output.to(ctx.hidden_dtype)
        if grad_weight is not None:
            grad_weight = grad_weight * grad_output.to(grad_weight.dtype)
        return grad_hidden, grad_weight, None, None, None, None


def _nll_and_gradient(
    rows: Tensor, weight: Tensor, labels: Tensor, vocab_size: int, softcap: float | None, with_gradient: bool
) -> tuple[Tensor, Tensor]:
    """Summed NLL of one chunk, and its gradient (n, V') with respect to the products in their dtype."""
    logits = (rows @ weight.t()).float()
    bend = None
    if softcap is not None:
        bend = logits.div_(softcap).tanh_()
        logits = bend * softcap
    logits[:, vocab_size:] = float("-inf")
    valid = labels >= 0
    target = labels.clamp(min=0)[:, None]
    log_norm = logits.logsumexp(dim=1, keepdim=True)
    nll = ((log_norm - logits.gather(1, target)).squeeze(1) * valid).sum()
    if not with_gradient:
        return nll, logits
    gradient = logits.sub_(log_norm).exp_()
    gradient.scatter_add_(1, target, torch.full_like(target, -1.0, dtype=gradient.dtype))
    gradient.mul_(valid[:, None])
    if bend is not None:
        gradient.mul_(bend.square_().neg_().add_(1))  # d tanh(x) = 1 - tanh(x)^2
    return nll, gradient.to(rows.dtype)
