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
from slm.models.inference.packed_linear import PackedLinear, packs
from slm.models.inference.prepared import prepare_for_inference
from slm.models.inference.quantized import BLOCK, Int4Linear, Int8Embedding, Int8Linear, four_bits
from slm.models.kernels import library as native
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


def weights_of(quantized: Any) -> torch.Tensor:
    """(out, in), what the codes stand for."""
    return quantized.rows(torch.arange(quantized.out_features))


@pytest.mark.parametrize("kind", [Int8Linear, Int4Linear])
def test_a_row_is_the_same_in_any_batch(kind: Callable[[nn.Linear], Any]) -> None:
    """To the last bit: a scale for all rows together would make a text depend on its neighbours."""
    quantized = kind(layer())
    x = torch.randn(9, 128) * torch.logspace(-3, 3, 9)[:, None]
    assert all(torch.equal(quantized(x[i : i + 1]), quantized(x)[i : i + 1]) for i in range(9))


@pytest.mark.parametrize("kind", [Int8Linear, Int4Linear])
@pytest.mark.parametrize(("inputs", "outputs"), [(128, 48), (70, 13), (1, 3)])
def test_a_long_text_gets_the_products_of_its_tokens(kind: Any, inputs: int, outputs: int) -> None:
    """Of sizes that no block divides, too, and without kernels: what a text scores is what decoding it computes."""
    quantized = kind(layer(inputs=inputs, outputs=outputs))
    x = torch.randn(40, inputs)
    one_by_one = torch.cat([quantized(row[None]) for row in x])
    torch.testing.assert_close(quantized(x), one_by_one, rtol=1e-5, atol=1e-5)
    with native.without_kernels():
        torch.testing.assert_close(kind(layer(inputs=inputs, outputs=outputs))(x), one_by_one, rtol=1e-3, atol=1e-3)
    assert share(quantized(x), x @ weights_of(quantized).T + quantized.bias) < 0.012
    assert share(weights_of(quantized), layer(inputs=inputs, outputs=outputs).weight) < 0.1


def test_4_bits_bring_the_weights_back() -> None:
    """Each block by a scale and a least value of its own, nearer than by its ends alone."""
    weight = torch.randn(32, 128, generator=torch.Generator().manual_seed(0))
    codes, scales = four_bits(weight)
    assert codes.max() <= 15
    blocks = codes.unflatten(1, (-1, BLOCK)).float()
    back = (blocks * scales[..., :1] + scales[..., 1:]).flatten(1)
    low, high = weight.unflatten(1, (-1, BLOCK)).aminmax(dim=2, keepdim=True)
    step = (high - low) / 15
    plain = (((weight.unflatten(1, (-1, BLOCK)) - low) / step).round() * step + low).flatten(1)
    assert share(back, weight) < 0.97 * share(plain, weight)


def test_what_lies_on_a_grid_stays_what_it_is() -> None:
    """GGUF's Q8_0 and Q4_1: a file's own numbers are kept to the last bit."""
    draw = torch.Generator().manual_seed(0)
    scale = torch.rand(24, 4, 1, generator=draw).half().float() / 64
    ends = {8: (-127, 127), 4: (0, 15)}
    for kind, bits in ((Int8Linear, 8), (Int4Linear, 4)):
        low, high = ends[bits]
        codes = torch.randint(low, high + 1, (24, 4, BLOCK), generator=draw)
        codes[..., 0], codes[..., 1] = low, high
        least = torch.randn(24, 4, 1, generator=draw).half().float() / 16 if bits == 4 else 0
        plain = layer(inputs=4 * BLOCK, outputs=24)
        plain.weight = nn.Parameter((codes * scale + least).flatten(1), requires_grad=False)
        assert torch.equal(weights_of(kind(plain)), plain.weight)


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


def small_model(tied: bool) -> Any:
    modules = {
        "transformer": {"dim": 64, "n_layers": 1, "n_heads": 2, "mlp_dim": 80},
        "output_projection": {"tie_weights": tied},
    }
    shape = {"name": "gpt", "params": {"max_seq_len": 8, "vocab_size": 64}, "modules": modules}
    return build_model(ModelConfig.from_dict(shape))


@pytest.mark.parametrize("tied", [True, False])
def test_head_and_embedding_have_8_bits_and_are_stored_once(tied: bool) -> None:
    """A file of 8-bit weights held the table a second time, whole."""
    plain = small_model(tied).eval().requires_grad_(False)
    ids = torch.arange(8)[None]
    with torch.no_grad():
        expected = plain(ids)
    model = copy.deepcopy(plain)
    prepare_for_inference(model, "int4")
    kinds = {type(module) for name, module in model.named_modules() if isinstance(module, Int4Linear | Int8Linear)}
    assert kinds == {Int4Linear, Int8Linear}
    assert type(model.token_embedding) is Int8Embedding
    assert type(model.inference_head) is Int8Linear
    tables = [name for name in model.state_dict() if name.endswith("codes") and "transformer" not in name]
    assert tables == ([] if tied else ["token_embedding.table.codes"]) + ["inference_head.codes"]
    assert model.state_dict().keys().isdisjoint({"token_embedding.weight", "output_projection.weight"})
    assert share(model.token_embedding(ids), plain.token_embedding(ids)) < 0.01
    with torch.no_grad():
        assert share(model(ids), expected) < 0.2
        assert model.bfloat16()(ids).dtype == torch.bfloat16


def test_a_bundle_with_a_scale_a_row_is_refused(run_cli: Any, tiny_run: Path, tmp_path: Path) -> None:
    """As former versions wrote them."""
    assert run_cli("convert", f"source={tiny_run}", "quantize=int8", "out=small").status == 0
    config = tmp_path / "small/config.json"
    content = json.loads(config.read_text())
    del content["block"]
    config.write_text(json.dumps(content))
    outcome = run_cli("generate", "model_dir=small", "prompt=x")
    assert outcome.status == 2
    assert "not in blocks of 32" in outcome.err


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
