"""8- and 4-bit weights: close to the model, the same in any batch, the same after a bundle."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import slm
from slm.errors import UserError
from slm.models.config import ModelConfig
from slm.models.contract import build_model
from slm.models.inference.packed_linear import GROUP, Int4Linear, Int8Linear, PackedLinear, four_bits, packs
from slm.models.inference.prepared import prepare_for_inference
from slm.weights.bundle import write_bundle


def layer(bias: bool = True, inputs: int = 128, outputs: int = 48) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs, bias=bias).requires_grad_(False)


def share(result: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative error."""
    return float((result - expected).norm() / expected.norm())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kind", "most"), [(Int8Linear, 0.012), (Int4Linear, 0.1)])
def test_products_are_close_and_shapes_kept(kind: Callable[[nn.Linear], nn.Module], most: float, bias: bool) -> None:
    plain = layer(bias)
    x = torch.randn(2, 7, 128) * torch.tensor([[[0.01]], [[30.0]]])  # rows of very different size
    quantized = kind(plain)
    for row in range(2):
        assert share(quantized(x)[row], plain(x)[row]) < most
    assert quantized(x).dtype == torch.float32
    assert quantized(x[:, 0]).shape == (2, 48)
    assert quantized(torch.zeros(1, 128)).isfinite().all()


def test_an_8_bit_row_is_the_same_in_any_batch() -> None:
    """To the last bit: a scale for all rows together would make a text depend on its neighbours."""
    quantized = Int8Linear(layer())
    x = torch.randn(9, 128) * torch.logspace(-3, 3, 9)[:, None]
    assert all(torch.equal(quantized(x[i : i + 1]), quantized(x)[i : i + 1]) for i in range(9))


def test_an_8_bit_product_is_the_exact_one_of_its_codes() -> None:
    quantized = Int8Linear(layer())
    x = torch.randn(5, 128)
    step = x.abs().amax(1, keepdim=True) / 127
    codes = torch.floor(x / step + 0.5).clamp(-127, 127)
    expected = (codes.double() @ quantized.codes.double().T) * quantized.scale.double() * step.double()
    torch.testing.assert_close(quantized(x), (expected + quantized.bias.double()).float(), rtol=1e-5, atol=1e-6)


def test_4_bit_codes_bring_the_weights_back() -> None:
    """Each group by a scale and an offset of its own; clipping a group's ends only ever lowers the error."""
    weight = torch.randn(32, 128, generator=torch.Generator().manual_seed(0))
    codes, scale, offset = four_bits(weight)
    assert codes.max() <= 15
    groups = codes.unflatten(1, (-1, GROUP)).float()
    back = ((groups - 8) * scale.t()[..., None] + offset.t()[..., None]).flatten(1)
    assert share(back, weight) < 0.095
    packed = Int4Linear(nn.Linear(128, 32, bias=False).requires_grad_(False))
    assert packed.codes.shape == (32, 64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packing_changes_no_number_beyond_rounding(dtype: torch.dtype) -> None:
    if not packs(torch.zeros(1, dtype=dtype)):
        pytest.skip(f"this CPU has no kernel for {dtype}")
    plain = layer().to(dtype)
    packed = PackedLinear(plain)
    for rows in (1, 5, 200):
        x = torch.randn(rows, 128, dtype=dtype)
        torch.testing.assert_close(packed(x), plain(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_loaded_models_state_is_the_stored_one(tiny_run: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    """Layers made ready for decoding once lost their weights from the state dict, and a bundle of it did not load."""
    lm = slm.load(tiny_run, device="cpu", dtype=dtype)
    stored = load_file(tiny_run / "model/model.safetensors")
    state = lm.model.state_dict()
    assert state.keys() == stored.keys()
    assert all(torch.equal(state[name], tensor.to(dtype)) for name, tensor in stored.items())
    write_bundle(tmp_path / "again", lm.model.config, state, lm.tokenizer, {})
    ids = torch.arange(10)[None]
    with torch.no_grad():
        assert torch.equal(slm.load(tmp_path / "again", device="cpu").model(ids), lm.model(ids))


def test_a_layer_that_no_group_divides_gets_8_bits() -> None:
    model = build_model(
        ModelConfig.from_dict(
            {
                "name": "gpt",
                "params": {"max_seq_len": 8, "vocab_size": 64},
                "modules": {"transformer": {"dim": 64, "n_layers": 1, "n_heads": 2, "mlp_dim": 80}},
            }
        )
    )
    prepare_for_inference(model, "int4")
    kinds = {
        name.split(".")[-1]: type(m) for name, m in model.named_modules() if isinstance(m, Int4Linear | Int8Linear)
    }
    four = ("qkv", "out_proj", "up_proj", "inference_head")
    assert kinds == {**dict.fromkeys(four, Int4Linear), "down_proj": Int8Linear}


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_a_quantized_bundle_is_the_quantized_model(run_cli: Any, tiny_run: Path, tmp_path: Path, mode: str) -> None:
    """Saved and read back: the same logits to the last bit, and no second quantization on top."""
    outcome = run_cli("convert", f"source={tiny_run}", f"quantize={mode}", "out=small")
    assert outcome.status == 0, outcome.err
    assert json.loads(outcome.out)["dtype"] == mode
    made, read = slm.load(tiny_run, device="cpu", quantize=mode), slm.load(tmp_path / "small", device="cpu")
    ids = torch.randint(0, 250, (2, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(made.model(ids), read.model(ids))
        plain = slm.load(tiny_run, device="cpu").model(ids)
        assert share(read.model(ids).float(), plain) < {"int8": 0.02, "int4": 0.2}[mode]
    sizes = [
        sum(f.stat().st_size for f in folder.glob("model.safetensors"))
        for folder in (tmp_path / "small", tiny_run / "model")
    ]
    assert sizes[0] < sizes[1]
    with pytest.raises(UserError, match="quantized already"):
        slm.load(tmp_path / "small", device="cpu", quantize="int8")
    outcome = run_cli("convert", "source=small", "to=hf", "out=x")
    assert outcome.status == 2
    assert "transformers has no form for quantize" in outcome.err


def test_generate_and_evaluate_quantized(run_cli: Any, tiny_run: Path) -> None:
    outcome = run_cli("generate", f"run={tiny_run}", "prompt=the", "generation.quantize=int8", "generation=greedy")
    assert outcome.status == 0, outcome.err
    outcome = run_cli("evaluate", f"run={tiny_run}", "quantize=int8")
    assert outcome.status == 0, outcome.err
    figures = json.loads(outcome.out)
    assert figures["quantize"] == "int8"
    assert figures["loss"] != figures["loss_unquantized"]
    assert figures["loss_change"] == pytest.approx(figures["loss"] - figures["loss_unquantized"])
    assert abs(figures["loss_change"]) < 0.03
    plain = json.loads(run_cli("evaluate", f"run={tiny_run}").out)
    assert plain["loss"] == pytest.approx(figures["loss_unquantized"], rel=1e-6)


@pytest.mark.parametrize("make", [Int8Linear, Int4Linear, PackedLinear])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_prepared_layers_can_be_copied_and_pickled(make: Callable[[nn.Linear], nn.Module], dtype: torch.dtype) -> None:
    """Weights in a kernel's own order have no storage that `copy` or `pickle` could read: both raised."""
    if make is PackedLinear and not packs(torch.zeros(1, dtype=dtype)):
        pytest.skip(f"this CPU has no kernel for {dtype}")
    prepared, x = make(layer().to(dtype)), torch.randn(3, 128, dtype=dtype)
    expected = prepared(x)
    for copied in (copy.deepcopy(prepared), pickle.loads(pickle.dumps(prepared))):
        assert torch.equal(copied(x), expected)
    assert torch.equal(prepared(x), expected)


def test_a_mode_that_there_is_not_is_refused(tiny_run: Path) -> None:
    """`slm.load(…, quantize="int3")` gave 8 bits and said nothing."""
    with pytest.raises(UserError, match="must be one of int8, int4, or left out; got 'int3'"):
        slm.load(tiny_run, device="cpu", quantize="int3")
