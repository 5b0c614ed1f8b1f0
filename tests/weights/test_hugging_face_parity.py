"""Every family against `transformers`: logits, gradients, greedy tokens, and the way there and back to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from slm.cli.composition import CONF, VERSION_BASE
from slm.generation.config import GenerationConfig
from slm.generation.engine import Engine
from slm.generation.request import Request, Token
from slm.models.config import ModelConfig
from slm.models.modules.losses import CrossEntropy
from slm.weights.fine_tuning import shape_values
from slm.weights.hugging_face import family_of, read_hugging_face
from slm.weights.name_table import check_tensors, load_tensors, their_tensors, widest_dtype
from slm.weights.pretrained import lay_out, take_weights

transformers = pytest.importorskip("transformers", reason="the extra slm[hf] is not installed")

VOCAB = 97
GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 96, "bos_token_id": 0}
NEOX = {
    "model_type": "gpt_neox", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 96, "max_position_embeddings": 96, "rotary_pct": 0.25,
}  # fmt: skip
LLAMA = {
    "model_type": "llama", "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 6,
    "num_key_value_heads": 2, "intermediate_size": 80, "max_position_embeddings": 96,
}  # fmt: skip
QWEN3 = {**LLAMA, "model_type": "qwen3", "head_dim": 16}
QWEN2 = {**LLAMA, "model_type": "qwen2"}
MISTRAL = {**LLAMA, "model_type": "mistral"}
LONG = {"original_max_position_embeddings": 16, "factor": 6.0}
CASES: dict[str, dict[str, Any]] = {
    "gpt2": GPT2,
    "gpt2 untied, relu, narrow mlp": {
        **GPT2, "tie_word_embeddings": False, "activation_function": "relu", "n_inner": 40
    },
    "llama": LLAMA,
    "llama tied, biases": {**LLAMA, "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True},
    "llama one kv head, wide heads": {**LLAMA, "num_key_value_heads": 1, "head_dim": 12, "hidden_act": "gelu"},
    "llama linear": {**LLAMA, "rope_scaling": {"rope_type": "linear", "factor": 4.0}, "rope_theta": 500000.0},
    "llama llama3": {
        **LLAMA,
        "rope_theta": 100.0,  # so that long, middling and short waves all occur
        "rope_scaling": {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0, **LONG},
    },
    "llama yarn": {**LLAMA, "rope_theta": 1000.0, "rope_scaling": {"rope_type": "yarn", **LONG}},
    "llama dynamic": {
        **LLAMA, "max_position_embeddings": 40, "rope_scaling": {"rope_type": "dynamic", "factor": 3.0},
    },
    "llama longrope": {
        **LLAMA,
        "rope_scaling": {
            "rope_type": "longrope", "short_factor": [1.0, 1.1, 1.5, 2.0], "long_factor": [1.0, 2.0, 4.0, 8.0], **LONG
        },
    },
    "mistral": {**MISTRAL, "sliding_window": 7},
    "mistral without a window": {**MISTRAL, "sliding_window": None, "head_dim": 12},
    "qwen2": QWEN2,
    "qwen2 tied, the first layer full": {
        **QWEN2, "tie_word_embeddings": True, "use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1
    },
    "qwen3 every other layer sliding": {
        **QWEN3, "num_hidden_layers": 3, "use_sliding_window": True, "sliding_window": 7,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "qwen3": QWEN3,
    "qwen3 tied, sliding": {
        **QWEN3, "tie_word_embeddings": True, "use_sliding_window": True, "sliding_window": 7, "max_window_layers": 0
    },
    "gpt_neox": NEOX,
    "gpt_neox tied": {**NEOX, "tie_word_embeddings": True, "rotary_pct": 1.0},
    "gpt_neox sequential, no attention biases": {**NEOX, "use_parallel_residual": False, "attention_bias": False},
}  # fmt: skip
PRESETS = {
    "gpt2_base": 124_439_808,
    "gpt2_medium": 354_823_168,
    "gpt2_large": 774_030_080,
    "gpt2_xl": 1_557_611_200,
    "smollm2_135m": 134_515_008,
    "smollm2_360m": 361_821_120,
    "qwen3_0_6b": 596_049_920,
    "llama3_2_1b": 1_235_814_400,
    "pythia_70m": 70_426_624,
    "pythia_160m": 162_322_944,
}
VOCABULARIES = {"gpt2": 50257, "smollm2": 49152, "qwen3": 151936, "llama3": 128256, "pythia": 50304}


def their_model(settings: dict[str, Any], seed: int = 0) -> nn.Module:
    """Random weights of such sizes that every part shows in the logits, norms and biases too."""
    values = {"vocab_size": VOCAB, "eos_token_id": 0, **settings}
    config = transformers.AutoConfig.for_model(values.pop("model_type"), **values)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 1:
                parameter.copy_(0.2 * noise + float("norm" in name or "ln_" in name) * ("weight" in name))
            else:
                parameter.copy_(noise * (0.5 if "emb" in name or "wte" in name else 1.0) / min(parameter.shape) ** 0.5)
    return model


def loaded(folder: Path, dtype: torch.dtype | None = None) -> nn.Module:
    """The model of a Hugging Face folder, without its tokenizer."""
    config, table, source = read_hugging_face(folder)
    model = lay_out(config)
    check_tensors(table, model.state_dict(), source, config.vocab_size)
    dtype = dtype or widest_dtype(table, source)
    weights = load_tensors(table, model.state_dict(), source, dtype, torch.device("cpu"))
    take_weights(model, weights, torch.device("cpu"))
    return model.eval()


def written(config: ModelConfig, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return their_tensors(family_of(config).table(config), weights, config.vocab_size)


def preset(name: str) -> ModelConfig:
    """A preset with its published vocabulary, unpadded."""
    vocabulary = next(size for start, size in VOCABULARIES.items() if name.startswith(start))
    overrides = [f"model={name}", f"model.params.vocab_size={vocabulary}", "model.params.vocab_multiple=1"]
    with initialize_config_module(CONF, **VERSION_BASE):
        values: Any = OmegaConf.to_container(compose("train", overrides=overrides).model, resolve=True)
    return ModelConfig.from_dict(shape_values(values))


def shrunk(config: ModelConfig) -> ModelConfig:
    """The same proportions, modules and switches at a size for a test."""
    values = config.to_dict()
    shape = values["modules"]["transformer"]
    group = shape["n_heads"] // shape["n_kv_heads"]
    n_kv_heads = 3 if shape["n_kv_heads"] % 3 == 0 else 2
    wider = shape["head_dim"] * shape["n_heads"] // shape["dim"]
    dim = group * n_kv_heads * 16 // wider
    shape.update(
        n_layers=2, n_kv_heads=n_kv_heads, n_heads=group * n_kv_heads, head_dim=16, dim=dim,
        mlp_dim=round(dim * shape["mlp_mult"]),
    )  # fmt: skip
    values["params"].update(vocab_size=VOCAB, max_seq_len=96)
    return ModelConfig.from_dict(values)


def stored_parameters(model: nn.Module, head: str) -> Iterator[tuple[str, nn.Parameter]]:
    """Under the names that files have; in memory, version 5 of transformers calls every head ``lm_head``."""
    for name, parameter in model.named_parameters():
        yield (head if name == "lm_head.weight" else name), parameter


def assert_same(theirs: nn.Module, ours: nn.Module) -> None:
    """Logits, gradients of the loss and 64 greedy tokens."""
    ids = torch.randint(1, VOCAB, (2, 24), generator=torch.Generator().manual_seed(1))
    expected = theirs(ids).logits
    assert expected.std() > 0.3, "weights too small to show a mistake"
    assert (ours(ids) - expected).abs().max() < 1e-4

    labels = ids.roll(-1, dims=1)
    cross_entropy(expected.flatten(0, 1), labels.flatten()).backward()
    loss = CrossEntropy()(ours.hidden_states(ids), ours.head_weight, labels, VOCAB)
    (loss / labels.numel()).backward()
    family = family_of(ours.config)
    mine = written(ours.config, {name: p.grad for name, p in ours.named_parameters()})
    for name, parameter in stored_parameters(theirs, family.head):
        assert (mine[name] - parameter.grad).norm() <= 1e-4 * parameter.grad.norm() + 1e-8, name

    theirs.generation_config.eos_token_id = None
    prompt = ids[:1, :5]
    with torch.no_grad():
        continued = theirs.generate(prompt, max_new_tokens=64, do_sample=False, pad_token_id=0)[0, 5:].tolist()
    settings = GenerationConfig(greedy=True, stop_at_eos=False)
    events = Engine(ours, settings, eos_id=0).run([Request(prompt[0].tolist(), 64)])
    assert [event.token_id for event in events if isinstance(event, Token)] == continued


@pytest.mark.parametrize("case", CASES)
def test_a_family_in_and_out_again(case: str, tmp_path: Path) -> None:
    """What transformers saved: the same model here, and the same tensors when written back."""
    theirs = their_model(CASES[case])
    theirs.save_pretrained(tmp_path)
    ours = loaded(tmp_path)
    assert_same(theirs, ours)
    back = written(ours.config, ours.state_dict())
    stored = load_file(tmp_path / "model.safetensors")
    assert back.keys() == stored.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in stored.items())


@pytest.mark.parametrize("name", PRESETS)
def test_a_presets_shape_is_its_models(name: str, tmp_path: Path) -> None:
    """At its published size the parameters are counted, on no memory; a small one of its proportions is compared."""
    config = preset(name)
    full = lay_out(config)
    assert sum(p.numel() for p in full.parameters()) == PRESETS[name]
    with torch.device("meta"):
        theirs = transformers.AutoModelForCausalLM.from_config(config_of(config))
    mine = written(config, full.state_dict())
    stored = stored_parameters(theirs, family_of(config).head)
    assert {name: tensor.shape for name, tensor in mine.items()} == {name: p.shape for name, p in stored}

    small = their_model(family_of(config).write_config(shrunk(config)))
    small.save_pretrained(tmp_path)
    ours = loaded(tmp_path)
    assert family_of(ours.config).model_type == family_of(config).model_type
    assert_same(small, ours)


def config_of(config: ModelConfig) -> Any:
    values = family_of(config).write_config(config)
    return transformers.AutoConfig.for_model(values.pop("model_type"), **values)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_every_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    """Read as stored, and in fp32 without a rounding; bf16 logits are transformers' within bf16."""
    theirs = their_model(LLAMA).to(dtype)
    theirs.save_pretrained(tmp_path)
    ours = loaded(tmp_path)
    assert {p.dtype for p in ours.parameters()} == {dtype}
    wide = loaded(tmp_path, torch.float32)
    for name, parameter in ours.named_parameters():
        assert torch.equal(parameter.float(), wide.get_parameter(name))
    ids = torch.arange(1, 20)[None]
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    with torch.no_grad():
        expected: Tensor = theirs(ids).logits
        torch.testing.assert_close(wide(ids), expected, rtol=1e-4, atol=1e-4)
        assert (ours(ids).float() - expected).abs().mean() < 0.05 * expected.abs().mean()


def test_shards_are_read_as_one(tmp_path: Path) -> None:
    theirs = their_model(LLAMA)
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    ids = torch.arange(1, 20)[None]
    torch.testing.assert_close(loaded(tmp_path)(ids), theirs(ids).logits, rtol=1e-4, atol=1e-4)
