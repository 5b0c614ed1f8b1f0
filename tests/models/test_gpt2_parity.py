"""GPT against an implementation by others."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from slm.models.modules.losses import CrossEntropy

transformers = pytest.importorskip("transformers", reason="the extra slm[hf] is not installed")

# theirs -> (ours, whether theirs is stored (in, out))
TOP = {
    "transformer.wte.weight": ("token_embedding.weight", False),
    "transformer.wpe.weight": ("position_embedding.weight", False),
    "transformer.ln_f": ("transformer.final_norm", False),
}
BLOCK = {
    "ln_1": ("attention_norm", False),
    "attn.c_attn": ("attention.qkv", True),
    "attn.c_proj": ("attention.out_proj", True),
    "ln_2": ("mlp_norm", False),
    "mlp.c_fc": ("mlp.up_proj", True),
    "mlp.c_proj": ("mlp.down_proj", True),
}


def pairs(theirs: nn.Module, ours: nn.Module, n_layers: int) -> Iterator[tuple[str, Tensor, Tensor, bool]]:
    """(name, their parameter, ours, transposed) for each parameter of theirs."""
    table = dict(TOP)
    for layer in range(n_layers):
        for their_part, (our_part, transposed) in BLOCK.items():
            table[f"transformer.h.{layer}.{their_part}"] = (f"transformer.blocks.{layer}.{our_part}", transposed)
    mine = dict(ours.named_parameters())
    for name, parameter in theirs.named_parameters():
        if name in table:
            our_name, transposed = table[name]
        else:
            module, _, kind = name.rpartition(".")
            our_module, transposed = table[module]
            our_name = f"{our_module}.{kind}"
        yield our_name, parameter, mine.pop(our_name), transposed and parameter.dim() == 2
    assert not mine, "parameters of ours that theirs has not"


def test_logits_and_gradients_equal_transformers_gpt2(make_model: Callable[..., nn.Module], ids: Tensor) -> None:
    """The qkv layout, the norms' eps, the tanh GELU, the scaling and the tied head are GPT-2's.

    The weights are large on purpose: with GPT-2's own 0.02 a wrong activation hides below the tolerance.
    """
    ours = make_model(activation="gelu_tanh")
    config = ours.config
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=config.vocab_size, n_positions=12, n_embd=16, n_layer=2, n_head=4, attn_implementation="eager"
        )
    ).eval()
    with torch.no_grad():
        for _, their, our, transposed in pairs(theirs, ours, n_layers=2):
            source = our.t() if transposed else our
            their.copy_(source[: their.shape[0]])

    torch.testing.assert_close(ours(ids), theirs(ids).logits, rtol=1e-5, atol=1e-4)

    labels = ids.roll(-1, dims=1)
    loss = CrossEntropy()(ours.hidden_states(ids), ours.head_weight, labels, config.vocab_size)
    (loss / labels.numel()).backward()
    cross_entropy(theirs(ids).logits.flatten(0, 1), labels.flatten()).backward()
    for name, their, our, transposed in pairs(theirs, ours, n_layers=2):
        assert our.grad is not None
        assert their.grad is not None
        grad = our.grad.t() if transposed else our.grad
        torch.testing.assert_close(
            grad[: their.shape[0]], their.grad, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert not ours.token_embedding.weight.grad[config.vocab_size :].any(), "padding rows learn"
