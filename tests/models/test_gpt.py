"""What the GPT promises in each of its variants."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from slm.models.config import ModelConfig
from slm.models.contract import build_model
from slm.registry import ACTIVATIONS, NORMS, POSITION_EMBEDDINGS

Make = Callable[..., nn.Module]
VARIANTS: list[dict[str, Any]] = [
    {"prenorm": False, "activation": "relu2"},
    {"prenorm": False, "norm": "rms_norm", "activation": "gelu", "qkv_bias": False},
    {"prenorm": True, "norm": "rms_norm", "activation": "silu", "position": "sinusoidal", "tie": False},
    {"prenorm": True, "bias": False, "activation": "relu", "position": "none", "mlp_mult": 1.5},
    {"embedding_skip": True, "values": True, "activation": "relu2"},
    {"embedding_skip": True, "prenorm": False, "activation": "relu2"},
]


def reference(model: nn.Module, ids: Tensor, v: dict[str, Any]) -> Tensor:
    """The forward pass once more, from the papers' formulas and the state dict alone."""
    weights, shape = model.state_dict(), model.config.modules.transformer
    (batch, length), dim, n_heads = ids.shape, shape.dim, shape.n_heads

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", 0)

    def norm(x: Tensor, name: str) -> Tensor:
        if shape.norm == "rms_norm":
            return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weights[f"{name}.weight"]
        centred = x - x.mean(-1, keepdim=True)
        scale = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return centred / scale * weights[f"{name}.weight"] + weights.get(f"{name}.bias", 0)

    def attention(x: Tensor, name: str, layer: int) -> Tensor:
        out = torch.zeros(batch, length, dim)
        q, k, val = linear(x, f"{name}.qkv").split(dim, dim=-1)
        if v.get("values"):
            val = val + weights["value_embedding.gates"][layer] * weights["value_embedding.table.weight"][ids]
        size = dim // n_heads
        for head in range(n_heads):
            part = slice(head * size, (head + 1) * size)
            for t in range(length):
                scores = (q[:, t : t + 1, part] * k[:, : t + 1, part]).sum(-1) / math.sqrt(size)
                out[:, t, part] = (scores.softmax(-1)[..., None] * val[:, : t + 1, part]).sum(1)
        return linear(out, f"{name}.out_proj")

    activations = {
        "relu": lambda x: x.clamp(min=0),
        "relu2": lambda x: x.clamp(min=0) ** 2,
        "silu": lambda x: x / (1 + torch.exp(-x)),
        "gelu": lambda x: x * 0.5 * (1 + torch.erf(x / math.sqrt(2))),
    }

    def mlp(x: Tensor, name: str) -> Tensor:
        return linear(activations[shape.activation](linear(x, f"{name}.up_proj")), f"{name}.down_proj")

    x = weights["token_embedding.weight"][ids]
    position = v.get("position", "learned")
    if position == "learned":
        x = x + weights["position_embedding.weight"][:length]
    elif position == "sinusoidal":
        for t in range(length):
            for i in range(0, dim, 2):
                angle = t / 10000 ** (i / dim)
                x[:, t, i] += math.sin(angle)
                x[:, t, i + 1] += math.cos(angle)
    embedded = x
    for layer in range(shape.n_layers):
        block = f"transformer.blocks.{layer}"
        if v.get("embedding_skip"):
            stream, skip = weights[f"{block}.embedding_skip.weight"]
            x = stream * x + skip * embedded
        if shape.prenorm:
            x = x + attention(norm(x, f"{block}.attention_norm"), f"{block}.attention", layer)
            x = x + mlp(norm(x, f"{block}.mlp_norm"), f"{block}.mlp")
        else:
            x = norm(x + attention(x, f"{block}.attention", layer), f"{block}.attention_norm")
            x = norm(x + mlp(x, f"{block}.mlp"), f"{block}.mlp_norm")
    if shape.prenorm:
        x = norm(x, "transformer.final_norm")
    head = weights.get("output_projection.weight", weights["token_embedding.weight"])
    return x @ head[: model.config.vocab_size].T


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(map(str, v.values())))
def test_every_variant_is_its_formula(make_model: Make, ids: Tensor, variant: dict[str, Any]) -> None:
    """Post-norm, RMSNorm, the activations, positions and heads that GPT-2 itself does not have."""
    model = make_model(**variant)
    torch.testing.assert_close(model(ids), reference(model, ids, variant), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tie", [True, False])
def test_forward_also_gives_what_the_head_reads(make_model: Make, ids: Tensor, tie: bool) -> None:
    """So that training can call a model, whose hooks sit there, and still take a loss that never holds all logits."""
    model: Any = make_model(tie=tie)
    called: list[Tensor] = []
    model.register_forward_hook(lambda _module, _inputs, output: called.append(output))
    places = torch.arange(ids.shape[1]).remainder(5).expand_as(ids)
    for positions in (None, places):
        hidden = model(ids, positions=positions, return_hidden=True)
        assert torch.equal(hidden, model.hidden_states(ids, positions=positions))
        assert torch.equal(model.head(hidden), model(ids, positions=positions))
    assert len(called) == 4


SWITCHES: dict[str, list[dict[str, Any]]] = {
    "position": [
        {"position": "learned"},
        {"position": "none"},
        {"position": "rotary"},
        {"position": "rotary", "rotary": {"fraction": 0.5, "base": 100.0}},
        {"position": "rotary", "rotary": {"scaling": {"kind": "yarn", "factor": 2.0, "original_max_seq_len": 8}}},
    ],
    "heads": [{}, {"n_kv_heads": 2}, {"n_kv_heads": 1, "head_dim": 8}],
    "mlp": [{}, {"mlp": "glu", "activation": "silu"}, {"mlp": "glu", "activation": "relu2", "mlp_dim": 10}],
    "norm": [{}, {"norm": "rms_norm", "qk_norm": True}, {"prenorm": False, "qk_norm": True}],
    "residual": [{}, {"parallel_residual": True}],
    "window": [{}, {"sliding_window": 1}, {"sliding_window": 5}],
    "bias": [{}, {"bias": False, "qkv_bias": False}, {"bias": False, "mlp_bias": True, "out_proj_bias": True}],
    "head": [{}, {"tie": False, "softcap": 3.0}],
    "embedding": [{}, {"embedding_skip": True}, {"values": True}, {"values": True, "embedding_skip": True}],
}


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_combination_is_causal_and_cached_as_uncached(make_model: Make, data: st.DataObject) -> None:
    """Every part with every other: a token changes nothing before it nor beyond its window, and a cache cut
    anywhere gives the logits of one whole pass."""
    chosen: dict[str, Any] = {}
    for options in SWITCHES.values():
        chosen.update(data.draw(st.sampled_from(options)))
    if chosen.get("parallel_residual"):
        chosen.pop("prenorm", None)
    model = make_model(**chosen)
    ids = torch.randint(29, (2, 12), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = model(ids)
        assert logits.isfinite().all()
        t = data.draw(st.integers(0, 11))
        changed = ids.clone()
        changed[:, t] = (changed[:, t] + 1) % 29
        other = model(changed)
        torch.testing.assert_close(other[:, :t], logits[:, :t], rtol=1e-5, atol=1e-5)
        reach = 2 * (chosen.get("sliding_window", 12) - 1)  # two layers
        torch.testing.assert_close(other[:, t + reach + 1 :], logits[:, t + reach + 1 :], rtol=1e-5, atol=1e-5)
        cuts = sorted(data.draw(st.sets(st.integers(1, 11))))
        cache = model.make_cache(batch_size=len(ids))
        pieces = [model(ids[:, a:b], cache) for a, b in zip([0, *cuts], [*cuts, 12], strict=True)]
        torch.testing.assert_close(torch.cat(pieces, dim=1), logits, rtol=1e-4, atol=1e-4)
    shape = model.config.modules.transformer
    assert cache.keys.shape[2:] == (shape.n_kv_heads, 12, shape.head_dim)


def test_rotary_attention_knows_distances_only(make_model: Make) -> None:
    """Su et al. 2021, eq. 16: shifting all positions changes nothing. With a cache whose first positions hold what
    no query can see (the window is full of later ones), the same tokens stand five places further."""
    model = make_model(position="rotary", sliding_window=4, n_layers=1)
    ids = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8]])
    with torch.no_grad():
        far, near = model(ids)[:, 8:], model(ids[:, 5:])[:, 3:]
    torch.testing.assert_close(far, near, rtol=1e-4, atol=1e-4)


def test_a_rotary_table_is_no_larger_than_what_was_read(make_model: Make) -> None:
    """A model of 131,072 positions does not pay for them; casting the model does not round its angles."""
    model = make_model(position="rotary")
    model(torch.zeros(1, 3, dtype=torch.int64))
    assert {len(cos) for cos, _ in model.position_embedding._tables.values()} == {6}
    before = model.position_embedding.rotation(torch.zeros(1, 3, 4), slice(0, 3), 3)
    model.bfloat16()
    after = model.position_embedding.rotation(torch.zeros(1, 3, 4), slice(0, 3), 3)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_rotary_adds_no_state(make_config: Callable[..., ModelConfig]) -> None:
    keys = build_model(make_config(position="rotary", n_layers=1, qk_norm=True, mlp="glu")).state_dict().keys()
    assert not any("position" in key for key in keys)
    assert {f"transformer.blocks.0.attention.{part}_norm.weight" for part in "qk"} <= keys
    assert "transformer.blocks.0.mlp.gate_proj.weight" in keys


KINDS = [
    *[{"norm": name} for name in NORMS.names()],
    *[{"activation": name} for name in ACTIVATIONS.names()],
    *[{"position": name} for name in POSITION_EMBEDDINGS.names()],
    {"prenorm": False},
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: "-".join(map(str, k.values())))
def test_every_kind_gives_unpadded_logits_and_is_causal(make_model: Make, ids: Tensor, kind: dict[str, Any]) -> None:
    """A token changes no logits before it, and does change its own; the padded vocabulary never shows."""
    model = make_model(**kind)
    logits = model(ids)
    assert logits.shape == (3, 12, 29)
    for t in (0, 5, 11):
        changed = ids.clone()
        changed[:, t] = (changed[:, t] + 1) % 29
        other = model(changed)
        assert torch.equal(other[:, :t], logits[:, :t])
        assert not torch.allclose(other[:, t], logits[:, t])


@pytest.fixture(scope="module")
def by_position(make_model: Make) -> dict[str, nn.Module]:
    return {name: make_model(position=name) for name in POSITION_EMBEDDINGS.names()}


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_cached_equals_uncached_however_the_sequence_is_cut(
    by_position: dict[str, nn.Module], data: st.DataObject
) -> None:
    """Prefill, chunks and single tokens meet the same positions and masks as one whole pass."""
    model = by_position[data.draw(st.sampled_from(sorted(by_position)))]
    ids = torch.tensor(
        data.draw(st.lists(st.lists(st.integers(0, 28), min_size=12, max_size=12), min_size=1, max_size=2))
    )
    cuts = sorted(data.draw(st.sets(st.integers(1, 11))))
    cache = model.make_cache(batch_size=len(ids))
    with torch.no_grad():
        pieces = [model(ids[:, a:b], cache) for a, b in zip([0, *cuts], [*cuts, 12], strict=True)]
        torch.testing.assert_close(torch.cat(pieces, dim=1), model(ids), rtol=1e-4, atol=1e-4)
    assert set(cache.lengths) == {12}


def deep_copied(model: nn.Module, _: Path) -> nn.Module:
    return copy.deepcopy(model)


def moved(model: nn.Module, _: Path) -> nn.Module:
    return copy.deepcopy(model).to(torch.float64).to(torch.float32)


def state_dict_loaded(model: nn.Module, _: Path) -> nn.Module:
    other = build_model(model.config)
    other.load_state_dict(model.state_dict())
    return other.eval()


def safetensors_loaded(model: nn.Module, folder: Path) -> nn.Module:
    save_file(model.state_dict(), folder / "weights.safetensors")  # refuses tensors that share memory
    with torch.device("meta"):
        other = build_model(model.config)
    other.load_state_dict(load_file(folder / "weights.safetensors"), assign=True)
    return other.eval()


@pytest.mark.parametrize("journey", [deep_copied, moved, state_dict_loaded, safetensors_loaded])
def test_the_tied_head_stays_tied(
    make_model: Make, ids: Tensor, tmp_path: Path, journey: Callable[[nn.Module, Path], nn.Module]
) -> None:
    """The original toy untied the head on loading: from then on embedding and head drifted apart."""
    model = make_model()
    other = journey(model, tmp_path)
    assert torch.equal(other(ids), model(ids))
    assert other.head_weight is other.token_embedding.weight
    assert [name for name, _ in other.named_parameters() if "output_projection" in name] == []
    with torch.no_grad():
        other.token_embedding.weight[7] *= 2
    zero = torch.zeros(1, 1, dtype=torch.int64)
    changed = (other(zero) != model(zero)).flatten().nonzero().flatten()
    assert changed.tolist() == [7], "only token 7's logit follows token 7's embedding"


MODULES = ("token_embedding", "position_embedding", "transformer", "output_projection")


@pytest.mark.parametrize("frozen", MODULES)
def test_freeze_takes_out_that_module_and_no_other(make_config: Callable[..., ModelConfig], frozen: str) -> None:
    model = build_model(make_config(tie=False, freeze=(frozen,)))
    not_trained = {name.split(".")[0] for name, p in model.named_parameters() if not p.requires_grad}
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert not_trained == {frozen}
    assert trained == set(MODULES) - {frozen}


def test_initial_weights_are_gpt2s(make_config: Callable[..., ModelConfig]) -> None:
    """N(0, 0.02); what writes into the residual stream smaller by sqrt(2 * n_layers); biases 0, norms 1."""
    torch.manual_seed(0)
    config = make_config(dim=128, n_layers=4, tie=False)
    for name, parameter in build_model(config).named_parameters():
        if "norm" in name or name.endswith("bias"):
            assert torch.equal(parameter, torch.full_like(parameter, float(name.endswith("weight")))), name
        else:
            residual = name.endswith(("attention.out_proj.weight", "mlp.down_proj.weight"))
            expected = 0.02 / math.sqrt(8) if residual else 0.02
            assert parameter.std().item() == pytest.approx(expected, rel=0.06), name
            assert abs(parameter.mean().item()) < 4 * expected / math.sqrt(parameter.numel()), name


def test_a_registered_kind_with_weights_of_its_own_is_initialised(
    make_config: Callable[..., ModelConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only Linear, Embedding and torch's norms were; another's weights were whatever lay in memory."""
    monkeypatch.setitem(ACTIVATIONS._entries, "prelu", nn.PReLU)
    weights = {n: p for n, p in build_model(make_config(activation="prelu")).named_parameters() if "activation" in n}
    assert len(weights) == 2
    assert all(torch.equal(weight, torch.tensor([0.25])) for weight in weights.values())


def test_state_dict_keys(make_config: Callable[..., ModelConfig]) -> None:
    """Checkpoints, bundles and conversion tables lean on these names."""
    keys = build_model(make_config(n_layers=1, tie=False)).state_dict().keys()
    block = "transformer.blocks.0"
    parts = [
        f"{block}.{part}"
        for part in (
            "attention_norm",
            "attention.qkv",
            "attention.out_proj",
            "mlp_norm",
            "mlp.up_proj",
            "mlp.down_proj",
        )
    ]
    assert set(keys) == {
        "token_embedding.weight",
        "position_embedding.weight",
        *(f"{part}.{kind}" for part in [*parts, "transformer.final_norm"] for kind in ("weight", "bias")),
        "output_projection.weight",
    }
    tied = build_model(make_config(n_layers=1, tie=True, position="sinusoidal")).state_dict().keys()
    assert set(keys) - set(tied) == {"position_embedding.weight", "output_projection.weight"}


def test_half_precision_takes_every_position_kind(make_model: Make, ids: Tensor) -> None:
    """A sinusoidal table in fp32 turned a bf16 stream into fp32, which no bf16 layer takes."""
    for position in POSITION_EMBEDDINGS.names():
        model = make_model(position=position)
        for parameter in model.parameters():
            parameter.data = parameter.data.bfloat16()
        assert model(ids).dtype == torch.bfloat16
