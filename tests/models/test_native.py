"""The C kernels against torch: products, a whole decoding step, and what happens without a compiler."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad, scaled_dot_product_attention

from slm.models.config import ModelConfig
from slm.models.contract import build_model
from slm.models.inference.packed_linear import NativeActivation, PackedLinear, packs
from slm.models.inference.prepared import prepare_for_inference
from slm.models.inference.quantized import Int4Linear, Int8Linear
from slm.models.kernels import library as native
from slm.models.kernels.activation import activate
from slm.models.kernels.attention import attend_prompt, serves_prompt
from slm.models.kernels.products import (
    largest_places,
    product_few,
    product_quantized,
    product_tiles,
    takes_tiles,
    widened,
)
from slm.models.modules import fused
from slm.models.modules.transformer import MLP
from slm.registry import ACTIVATIONS

needs_kernels = pytest.mark.skipif(native.library() is None, reason="no C compiler: there are no kernels to test")


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


# ---- attention of prompts ----


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("seed", range(8))
def test_a_prompts_attention_is_that_of_double_precision(seed: int, dtype: torch.dtype, threads: int) -> None:
    """Any shape, window and past; a row that stands alone gets the same to the bit."""
    draw = random.Random(seed)
    kv_heads, group, dim = draw.randint(1, 3), draw.randint(1, 3), 16 * draw.randint(1, 6)
    batch, length = draw.randint(1, 3), draw.choice([2, 5, 6, 7, 64, 65, 130])
    past, window = draw.choice([0, 0, 3, 70]), draw.choice([None, 1, 4, 66])
    heads = (kv_heads * group, kv_heads, kv_heads)
    q, k, v = torch.randn(batch, past + length, sum(heads), dim, dtype=dtype).split(heads, dim=2)
    q, k, v = q[:, past:].transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if draw.random() < 0.5:
        v = v.contiguous()
    q[0, 0, 0, 0] = 40.0  # a sharp one
    seen = torch.ones(length, past + length, dtype=torch.bool).tril(past)
    if window is not None:
        seen = seen.triu(past - window + 1)
    expected = scaled_dot_product_attention(q.double(), k.double(), v.double(), attn_mask=seen, enable_gqa=True)
    assert serves_prompt(q, k, v)
    found = attend_prompt(q, k, v, window)
    tolerance = 3e-6 if dtype == torch.float32 else 2**-8
    torch.testing.assert_close(
        found.double(), expected.transpose(1, 2).flatten(2), rtol=tolerance, atol=tolerance if window is None else 1e-5
    )
    for row in range(batch):
        alone = attend_prompt(q[row, None], k[row, None], v[row, None], window)
        assert torch.equal(alone[0], found[row])


@needs_kernels
def test_a_prompt_of_a_prepared_model_takes_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """And gives the logits of the modules; nan stays nan instead of becoming a number."""
    config = ModelConfig.from_dict(
        {"name": "gpt", "params": {"max_seq_len": 80, "vocab_size": 50},
         "modules": {"transformer": {"dim": 64, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2}}}
    )  # fmt: skip
    model: Any = build_model(config).eval()
    ids = torch.randint(50, (2, 70))
    expected = model(ids)
    prepare_for_inference(model)
    calls: list[int] = []

    def counted(*arguments: Tensor) -> Tensor:
        calls.append(1)
        return attend_prompt(*arguments)

    monkeypatch.setattr(fused, "attend_prompt", counted)
    torch.testing.assert_close(model(ids, model.make_cache(2)), expected, rtol=1e-4, atol=1e-5)
    assert len(calls) == 2
    q = torch.randn(1, 1, 9, 16)
    v = q.clone()
    v[0, 0, 7] = float("nan")
    assert attend_prompt(q, q, v).isnan().any(-1)[0, [0, 5, 7, 8]].tolist() == [False, False, True, True]


# ---- products ----


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 5), (50, 64), (33, 100), (770, 96), (97, 17), (1, 1)], ids=str)
def test_a_product_is_that_of_double_precision_rounded(
    shape: tuple[int, int], dtype: torch.dtype, threads: int
) -> None:
    """And each row's is the same to the bit in any company: a text does not depend on its neighbours."""
    layer = nn.Linear(shape[1], shape[0], bias=shape[0] % 2 == 0).to(dtype)
    for n_rows in (1, 2, 3, 4, 5, 7, 16, 31, 65):
        x = torch.randn(n_rows, shape[1], dtype=dtype)
        products = (
            [product_few, product_tiles] if takes_tiles(layer.weight) and dtype == torch.bfloat16 else [product_few]
        )
        bias = None if layer.bias is None else layer.bias.double()
        expected = linear(x.double(), layer.weight.double(), bias)
        for product in products:
            y = product(x, layer.weight, layer.bias)
            tolerance = 2e-6 if dtype == torch.float32 else 2**-8
            torch.testing.assert_close(y.double(), expected, rtol=tolerance, atol=tolerance * shape[1] ** 0.5)
            alone = torch.cat([product(row[None], layer.weight, layer.bias) for row in x])
            assert torch.equal(y, alone)


@needs_kernels
@pytest.mark.parametrize("kind", [Int8Linear, Int4Linear])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(5, 70), (96, 128), (3, 1), (48, 192)], ids=str)
def test_a_quantized_product_is_the_exact_one_of_the_codes(
    shape: tuple[int, int], dtype: torch.dtype, kind: Any, threads: int
) -> None:
    layer = nn.Linear(shape[1], shape[0]).to(dtype)
    quantized = kind(layer)
    weight = quantized.rows(torch.arange(shape[0])).double()
    for n_rows in (1, 2, 3, 4, 6, 17):
        x = torch.randn(n_rows, shape[1], dtype=dtype) * 10.0 ** torch.randint(-3, 3, (n_rows, 1))
        x = x.to(dtype)
        y = product_quantized(x, quantized.codes, quantized.scales, layer.bias, shape[0])
        tolerance = 1e-2 if dtype == torch.bfloat16 else 1e-5
        torch.testing.assert_close(y.double(), of_codes(x, weight, layer), rtol=tolerance, atol=tolerance)
        alone = [product_quantized(row[None], quantized.codes, quantized.scales, layer.bias, shape[0]) for row in x]
        assert torch.equal(y, torch.cat(alone))
    torch.testing.assert_close(
        widened(quantized.codes, quantized.scales, *shape, torch.float32).double(), weight, rtol=1e-6, atol=1e-7
    )


@needs_kernels
@pytest.mark.parametrize("kind", [Int8Linear, Int4Linear])
def test_nan_stays_in_its_row(kind: Any) -> None:
    quantized = kind(nn.Linear(64, 8).requires_grad_(False))
    x = torch.ones(2, 64)
    x[0, 3] = float("nan")
    y = quantized(x)
    assert y[0].isnan().all()
    assert y[1].isfinite().all()


def of_codes(x: Tensor, weight: Tensor, layer: nn.Linear) -> Tensor:
    """The product where each 16 numbers of a row of `x` have 255 steps, in double precision."""
    halves = pad(x.double(), (0, -x.shape[1] % 16)).unflatten(1, (-1, 16))
    peak = halves.abs().amax(dim=2, keepdim=True).clamp(min=1e-12)
    by = (127 / peak.float()).double()  # rounded once, as fma does
    codes = (halves * by + 128.5).float().floor().double() - 128
    rounded = (codes * (peak.float() / 127).double()).flatten(1)[:, : x.shape[1]]
    return linear(rounded, weight, layer.bias.double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("n", [1, 15, 16, 1024, 1025, 5000])
def test_the_largest_is_the_first_of_equals(n: int, dtype: torch.dtype) -> None:
    for spread in (1.0, 3.0, 1000.0):
        x = (torch.randn(3, n + 5) * spread).round().to(dtype)[:, :n]
        first = [int((row == row.max()).nonzero()[0]) for row in x]
        assert largest_places(x).tolist() == first
    x[0], x[1, n // 2] = float("-inf"), float("nan")
    assert largest_places(x).tolist()[:2] == [0, n // 2]


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", sorted(ACTIVATIONS.names()))
def test_a_non_linearity_is_torchs(kind: str, dtype: torch.dtype) -> None:
    """Over all sizes of numbers; infinity and nan do not become numbers."""
    source = ACTIVATIONS.get(kind)()
    x = torch.cat([torch.linspace(-120, 120, 4000), torch.linspace(-3, 3, 4000)]).to(dtype)
    x[:2] = torch.tensor([float("nan"), float("inf")])
    expected = source(x)
    found = x.clone()
    number = fused.kind_of(source)
    assert number is not None
    activate(number, found, None, found)
    tolerance = 1e-2 if dtype == torch.bfloat16 else 2e-6
    torch.testing.assert_close(found[2:], expected[2:], rtol=tolerance, atol=2e-6)
    assert found[0].isnan()
    assert not found[1].isfinite()
    layer = NativeActivation(source, number)
    torch.testing.assert_close(layer(x.clone())[2:], expected[2:], rtol=tolerance, atol=2e-6)


# ---- a decoding step ----

CHOICES: dict[str, list[Any]] = {
    "n_heads, n_kv_heads": [(4, 4), (4, 2), (4, 1)],
    "head_dim": [16, 48],
    "norm": ["layer_norm", "rms_norm"],
    "bias": [True, False],
    "qkv_bias": [True, False],
    "activation": ["gelu", "gelu_tanh", "relu", "relu2", "silu"],
    "mlp": ["mlp", "glu"],
    "qk_norm": [True, False],
    "sliding_window": [None, 5],
    "parallel_residual": [True, False],
    "prenorm": [True, True, False],
}


def random_model(seed: int, mode: str) -> tuple[nn.Module, dict[str, Any]]:
    draw = random.Random(seed)
    chosen = {name: draw.choice(values) for name, values in CHOICES.items()}
    chosen["n_heads"], chosen["n_kv_heads"] = chosen.pop("n_heads, n_kv_heads")
    if not chosen["prenorm"]:
        chosen["parallel_residual"] = False
    positions = draw.choice([{"kind": "learned"}, {"kind": "rotary", "rotary": {"fraction": draw.choice([1.0, 0.25])}}])
    config = ModelConfig.from_dict(
        {
            "name": "gpt",
            "params": {"vocab_size": 80, "max_seq_len": 24},
            "modules": {
                "transformer": {"dim": 64, "n_layers": 2, "mlp_dim": 128, **chosen},
                "position_embedding": positions,
            },
        }
    )
    model = build_model(config).eval()
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.2)  # biases and norms are 0 and 1 otherwise
    model.to(torch.bfloat16 if mode == "bf16" else torch.float32)
    prepare_for_inference(model, mode if mode in ("int8", "int4") else None)
    return model, {**chosen, "positions": positions}


def decoded(model: Any, steps: int, n_rows: int) -> Tensor:
    """Logits of `steps` tokens after prompts of other lengths."""
    draw = torch.Generator().manual_seed(1)
    cache = model.make_cache(n_rows, 20)
    cache.keep(0)
    for row in range(n_rows):
        part = cache.rows(row, row + 1)
        length = 1 + 3 * row
        model.hidden_states(torch.randint(80, (1, length), generator=draw), part)
        cache.append([length])
    tokens = torch.randint(80, (steps, n_rows, 1), generator=draw)
    return torch.stack([model(token, cache) for token in tokens])


@needs_kernels
@pytest.mark.parametrize("mode", ["fp32", "bf16", "int8", "int4"])
@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(n, marks=pytest.mark.nightly) for n in range(4, 12))])
def test_a_step_of_the_stack_is_that_of_its_modules(seed: int, mode: str, threads: int) -> None:
    """Random models, rows at positions of their own; where the machine has the products the stack must be taken, or
    modules would be compared with themselves."""
    model, chosen = random_model(seed, mode)
    n_rows = 1 + seed % 5
    stacked = decoded(model, 6, n_rows)
    step = model.transformer.decode_step
    has_products = mode not in ("fp32", "bf16") or packs(model.head_weight)
    assert (step is not None and step.stack is not None) == has_products, chosen
    model.transformer.decode_step = None
    by_modules = decoded(model, 6, n_rows)
    scale = by_modules.float().std()
    difference = (stacked.float() - by_modules.float()).abs().max() / scale
    assert difference < {"fp32": 1e-4, "bf16": 0.2, "int8": 2e-3, "int4": 2e-3}[mode], (difference, chosen)


@needs_kernels
def test_weights_that_move_are_found_again() -> None:
    """The stack holds their addresses: after a move it must not read where they were."""
    model, _ = random_model(3, "fp32")
    before = decoded(model, 2, 1)
    for layer in model.modules():
        if isinstance(layer, PackedLinear):
            layer._weight = layer._weight.clone().mul_(2)
    model.transformer._apply(lambda tensor: tensor.clone())
    assert not torch.allclose(decoded(model, 2, 1), before)


class HalvedMLP(MLP):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 2


@needs_kernels
def test_a_part_of_ones_own_is_not_passed_over() -> None:
    """A subclass may do anything in its forward; the stack takes only the classes it was written after."""
    model, _ = random_model(0, "fp32")
    block: Any = model.transformer.blocks[1]
    block.mlp.__class__ = HalvedMLP
    model.transformer._apply(lambda tensor: tensor)
    decoded(model, 1, 1)
    assert model.transformer.decode_step.stack is None


@needs_kernels
@pytest.mark.parametrize("paths", [{"values": True}, {"embedding_skip": True}], ids=str)
def test_what_the_stack_does_not_know_goes_by_the_modules(make_model: Any, paths: dict[str, bool]) -> None:
    """A prepared model with value embeddings or skips decodes as it did before: the stack would pass over them."""
    shape: dict[str, Any] = {"dim": 64, "mlp_dim": 128, **paths}
    ids = torch.randint(29, (6, 2, 1), generator=torch.Generator().manual_seed(1))

    def written(model: Any) -> Tensor:
        cache = model.make_cache(2)
        return torch.stack([model(token, cache) for token in ids])

    before = written(make_model(**shape))
    model = make_model(**shape)
    prepare_for_inference(model)
    torch.testing.assert_close(written(model), before, rtol=1e-3, atol=1e-3)


@needs_kernels
def test_a_copy_decodes_alike() -> None:
    import copy

    model, _ = random_model(1, "fp32")
    before = decoded(model, 2, 2)
    twin = copy.deepcopy(model)
    assert torch.equal(decoded(twin, 2, 2), before)


# ---- where there is no compiler ----


def loaded_afresh(monkeypatch: pytest.MonkeyPatch, folder: Path, **environment: str) -> Any:
    monkeypatch.setenv("SLM_CACHE_DIR", str(folder))
    monkeypatch.delenv("SLM_NATIVE", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return native._library.__wrapped__()


def test_without_a_compiler_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert loaded_afresh(monkeypatch, tmp_path, CC="no-such-compiler") is None
    assert "no C compiler (no-such-compiler)" in capfd.readouterr().err


def test_a_compiler_that_fails_is_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\necho 'kernels.h:1: error: no' >&2\nexit 1\n")
    broken.chmod(0o755)
    assert loaded_afresh(monkeypatch, tmp_path / "cache", CC=str(broken)) is None
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert "error: no" in said
    assert list((tmp_path / "cache" / "native").iterdir()) == []


def test_it_can_be_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert loaded_afresh(monkeypatch, tmp_path, SLM_NATIVE="0") is None
    assert list(tmp_path.iterdir()) == []


@needs_kernels
@pytest.mark.nightly
def test_it_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert loaded_afresh(monkeypatch, tmp_path) is not None
    made = list((tmp_path / "native").iterdir())
    assert [file.suffix for file in made] == [".so"]
    changed = made[0].stat().st_mtime_ns
    assert loaded_afresh(monkeypatch, tmp_path) is not None
    assert made[0].stat().st_mtime_ns == changed


# ---- what the kernels must not be handed ----


@needs_kernels
@pytest.mark.parametrize("mode", ["fp32", "int8", "int4"])
def test_a_prepared_model_can_be_cast(mode: str) -> None:
    """The kernels once read weights of one dtype as those of another: nan, or memory that was not theirs."""
    model, _ = random_model(4, mode)
    before = decoded(model, 2, 2).float()
    for dtype in (torch.bfloat16, torch.float32, torch.float16, torch.float32):
        model.to(dtype)
        after = decoded(model, 2, 2).float()
        assert (after - before).abs().max() < 0.3 * before.std(), dtype


@needs_kernels
def test_a_full_cache_is_refused() -> None:
    """One token too many was written past the cache's end."""
    model, _ = random_model(3, "fp32")
    cache: Any = model.make_cache(1, 4)
    model(torch.zeros(1, 4, dtype=torch.int64), cache)
    with pytest.raises(ValueError, match="no room"):
        model(torch.zeros(1, 1, dtype=torch.int64), cache)


@needs_kernels
def test_several_threads_decode_with_one_model() -> None:
    """They shared the arguments of the call, which lets other threads run."""
    from concurrent.futures import ThreadPoolExecutor

    model, _ = random_model(5, "fp32")
    expected = decoded(model, 6, 2)

    def again(_: int) -> bool:
        with torch.inference_mode():
            return torch.equal(decoded(model, 6, 2), expected)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(again, range(40)))


@needs_kernels
@pytest.mark.parametrize("mode", ["fp32", "bf16", "int8", "int4"])
def test_nan_stays_nan(mode: str) -> None:
    """A model that diverged must not write a text as if nothing were wrong."""
    model, _ = random_model(2, mode)
    if mode in ("fp32", "bf16"):
        model.token_embedding.weight[7] = float("nan")
    else:
        model.inference_head.scales[7 // 8, :, 7 % 8] = float("nan")  # the embedding's, too
        assert model.token_embedding(torch.tensor([7])).isnan().all()
    cache = model.make_cache(1, 4)
    assert model(torch.tensor([[7]]), cache).isnan().all()
