"""Where modules meet kernels: each function takes the kernel that serves what it is given, else torch's operations."""

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from slm.models.contract import compute_dtype
from slm.models.kernels.activation import KINDS, ActivatedProduct
from slm.models.kernels.attention import attend_prompt, serves_prompt, serves_training, train_attention
from slm.models.kernels.cross_entropy import cross_entropy_, has_cross_entropy
from slm.models.kernels.library import WIDTH, library, serves
from slm.registry import ACTIVATIONS

# Logits held at a time. Large chunks make fast products, and so do whole tiles of rows; these keep head and loss of
# 50,304 tokens under 150 MB.
_CHUNK_BYTES = 50 * 2**20
_TILE_ROWS = 64
# Without the kernel they are held several times over, in fp32: 16 MiB stay near the last-level cache of a CPU.
_CHUNK_ELEMENTS = 2**22
_MIN_CHUNK_ROWS = 128
# A GPU wants larger ones: few launches, and products that fill it. Never more than an eighth of the batch, beside whose
# activations that is little.
_GPU_CHUNK_BYTES = 2**26
_GPU_CHUNKS = 8


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float, cached: bool, prepared: bool
) -> Tensor:
    """softmax(Q K^T / sqrt(D)) V (Vaswani et al. 2017, eq. 1), the mixed values (B, T, H * D). Queries are
    (B, H, T, D), keys and values (B, H_kv, S, D) with H a multiple of H_kv, which may lie in a cache. The mask is
    (T, S) or (B, 1, T, S) bool, True where query t sees key s; None, for T = 1 or S, is the causal one. If `prepared`,
    prompts may go by the kernel that knows no gradients."""
    batch, _, length, _ = q.shape
    causal = mask is None and length > 1
    if causal and prepared and not dropout and serves_prompt(q, k, v):
        return attend_prompt(q, k, v)
    if causal and not cached and not dropout and serves_training(q, k, v):
        return train_attention(q, k, v)
    grouped = q.shape[1] != k.shape[1]
    mixed = scaled_dot_product_attention(q, k, v, mask, dropout, causal, enable_gqa=grouped)
    return mixed.transpose(1, 2).reshape(batch, length, -1)


def attend_openly(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """As `attend`, and the weights (B, H, T, S) that it mixes by, which no kernel gives out."""
    batch, heads, length, dim = q.shape
    groups = heads // k.shape[1]
    k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
    scores = (q @ k.transpose(-1, -2)).float() * dim**-0.5
    if mask is None and length > 1:
        mask = torch.ones(length, k.shape[2], dtype=torch.bool, device=q.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = scores.softmax(dim=-1).to(v.dtype)
    return (weights @ v).transpose(1, 2).reshape(batch, length, -1), weights


def project_activated(x: Tensor, up: Tensor | None, activation: nn.Module, projection: nn.Module) -> Tensor:
    """``projection(activation(x))``, or ``projection(activation(x) * up)``, of `x` and `up` (..., in)."""
    if _serves(x, activation, projection) and (kind := kind_of(activation)) is not None:
        weight, bias = (None if p is None else p.to(x.dtype) for p in (projection.weight, projection.bias))
        up = None if up is None else up.contiguous()
        return ActivatedProduct.apply(x.contiguous(), up, weight, bias, kind)
    read = activation(x)
    return projection(read if up is None else read * up)


def kind_of(activation: object) -> int | None:
    """The kernel's number of a non-linearity of ours, which a subclass is not; None without a kernel."""
    if library() is None:
        return None
    return next((kind for kind, name in enumerate(KINDS) if type(activation) is ACTIVATIONS.get(name)), None)


def _serves(x: Tensor, activation: nn.Module, projection: nn.Module) -> bool:
    # not where somebody watches the non-linearity or the projection
    return (
        not torch.compiler.is_compiling()
        and serves(x)
        and x.numel() % WIDTH == 0
        and type(projection) is nn.Linear
        and x.dtype == compute_dtype(projection.weight)
        and not any(
            module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
            for module in (activation, projection)
        )
    )


def nll_and_gradient(
    logits: Tensor, labels: Tensor, vocab_size: int, softcap: float | None, with_gradient: bool
) -> tuple[Tensor, Tensor]:
    """NLLs (n,) of a chunk of logits (n, V'), which are overwritten, and their sum's gradient, where it is wanted, with
    respect to them; arguments as for `cross_entropy_`."""
    if has_cross_entropy(logits.device, logits.dtype):
        return cross_entropy_(logits, labels, vocab_size, softcap, with_gradient), logits
    given, logits, bend = logits, logits.float(), None
    if softcap is not None:
        bend = logits.div_(softcap).tanh_()
        logits = bend * softcap
    logits[:, vocab_size:] = float("-inf")
    valid = labels >= 0
    target = labels.clamp(min=0)[:, None]
    log_norm = logits.logsumexp(dim=1, keepdim=True)
    nll = (log_norm - logits.gather(1, target)).squeeze(1) * valid
    if not with_gradient:
        return nll, given
    gradient = logits.sub_(log_norm).exp_()
    gradient.scatter_add_(1, target, torch.full_like(target, -1.0, dtype=gradient.dtype))
    gradient.mul_(valid[:, None])
    if bend is not None:
        gradient.mul_(bend.square_().neg_().add_(1))  # d tanh(x) = 1 - tanh(x)^2
    return nll, gradient.to(given.dtype)


def rows_at_once_on_a_gpu(n_rows: int, row_bytes: int) -> int:
    """How many of `n_rows` of logits the loss holds there, at most."""
    return max(_GPU_CHUNK_BYTES // row_bytes, -(-n_rows // _GPU_CHUNKS))


def loss_chunks(n_rows: int, weight: Tensor) -> list[slice]:
    """Of like size, as large as memory should allow, for `nll_and_gradient` with the head's `weight` (V', C)."""
    row_bytes = weight.shape[0] * weight.element_size()
    tile = 1
    if not has_cross_entropy(weight.device, weight.dtype):
        most = _CHUNK_ELEMENTS // weight.shape[0]
    elif weight.is_cuda:
        most = rows_at_once_on_a_gpu(n_rows, row_bytes)
    else:
        tile = _TILE_ROWS
        most = _CHUNK_BYTES // row_bytes // tile * tile
    n_chunks = max(1, -(-n_rows // max(_MIN_CHUNK_ROWS, most)))
    step = -(-max(1, -(-n_rows // n_chunks)) // tile) * tile
    return [slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step)]
