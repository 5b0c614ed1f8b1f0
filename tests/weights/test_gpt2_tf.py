"""GPT-2 in OpenAI's layout, against its definition in numpy and double precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

Array = np.ndarray[Any, Any]


def layer_norm(x: Array, gain: Array, bias: Array) -> Array:
    deviation = x - x.mean(axis=-1, keepdims=True)
    return deviation / np.sqrt((deviation**2).mean(axis=-1, keepdims=True) + 1e-5) * gain + bias


def gelu(x: Array) -> Array:
    """Hendrycks and Gimpel (2016), the approximation by tanh."""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def attention(qkv: Array, n_head: int) -> Array:
    """(T, 3C) to (T, C): every position attends to itself and those before it, head by head."""
    heads = []
    for q, k, v in zip(*(np.split(part, n_head, axis=-1) for part in np.split(qkv, 3, axis=-1)), strict=True):
        scores = q @ k.T / np.sqrt(q.shape[-1])
        scores[np.triu_indices(len(scores), 1)] = -np.inf
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        heads.append(weights / weights.sum(axis=-1, keepdims=True) @ v)
    return np.concatenate(heads, axis=-1)


def gpt2_logits(variables: dict[str, Array], n_head: int, ids: Array) -> Array:
    """Logits (B, T, V) in float64 of ids (B, T), from the definition (Radford et al. 2019; openai/gpt-2 model.py)."""
    weights = {name.removeprefix("model/"): values.astype(np.float64) for name, values in variables.items()}

    def norm(x: Array, name: str) -> Array:
        return layer_norm(x, weights[f"{name}/g"], weights[f"{name}/b"])

    def linear(x: Array, name: str) -> Array:
        return x @ weights[f"{name}/w"][0] + weights[f"{name}/b"]

    def one(row: Array) -> Array:
        x = weights["wte"][row] + weights["wpe"][: len(row)]
        for layer in range(sum(name.endswith("/ln_1/g") for name in weights)):
            block = f"h{layer}"
            mixed = attention(linear(norm(x, f"{block}/ln_1"), f"{block}/attn/c_attn"), n_head)
            x = x + linear(mixed, f"{block}/attn/c_proj")
            x = x + linear(gelu(linear(norm(x, f"{block}/ln_2"), f"{block}/mlp/c_fc")), f"{block}/mlp/c_proj")
        return norm(x, "ln_f") @ weights["wte"].T

    return np.stack([one(row) for row in ids])


def test_the_definition_agrees_with_transformers(
    gpt2_variables: dict[str, Array], gpt2_hparams: dict[str, int]
) -> None:
    """The judge is judged: in double precision by an implementation of others, with weights that show every part."""
    transformers = pytest.importorskip("transformers", reason="the extra slm[hf] is not installed")
    sizes = {"vocab_size": "n_vocab", "n_positions": "n_ctx", "n_embd": "n_embd", "n_head": "n_head"}
    config = transformers.GPT2Config(
        **{theirs: gpt2_hparams[ours] for theirs, ours in sizes.items()},
        n_layer=gpt2_hparams["n_layer"],
        attn_implementation="eager",
    )
    model = transformers.GPT2LMHeadModel(config).double().eval()
    state = dict(model.transformer.named_parameters())
    ends = {"g": "weight", "w": "weight", "b": "bias", "wte": "wte.weight", "wpe": "wpe.weight"}
    for name, values in gpt2_variables.items():
        *path, end = name.removeprefix("model/").replace("/", ".").split(".")
        path = [f"h.{part[1:]}" if part[0] == "h" else part for part in path]
        state.pop(".".join([*path, ends[end]])).data.copy_(torch.from_numpy(values).squeeze(0))
    assert not state
    ids = np.random.default_rng(1).integers(gpt2_hparams["n_vocab"], size=(3, gpt2_hparams["n_ctx"]))
    ours = gpt2_logits(gpt2_variables, gpt2_hparams["n_head"], ids)
    with torch.no_grad():
        theirs = model(torch.from_numpy(ids)).logits.numpy()
    assert np.abs(ours).max() > 1
    np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10)
