"""Checkpoints of nanoGPT, litgpt and PEFT, weights that torch pickled, vocabularies of SentencePiece: what they are
is found by looking, and they are the model that was written."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from test_hugging_face_parity import GPT2, LLAMA, NEOX, QWEN3, VOCAB, loaded, their_model
from torch import Tensor, nn

from slm.errors import UserError
from slm.tokenizers.hf_gpt2 import HfGpt2Tokenizer
from slm.tokenizers.load import is_missing
from slm.weights.bundle import write_bundle
from slm.weights.open_model import find_source, open_source

transformers = pytest.importorskip("transformers", reason="the extra slm[hf] is not installed")
CASES_OF_OTHERS = Path(os.environ.get("SLM_TEST_CASES", Path(__file__).parents[3] / "shared" / "cases")) / "checkpoints"
IDS = torch.randint(1, VOCAB, (2, 24), generator=torch.Generator().manual_seed(1))


def opened(place: Path, **how: Any) -> Any:
    return open_source(find_source(place, **how))


def assert_is(place: Path, theirs: nn.Module, **how: Any) -> Any:
    found = opened(place, **how)
    torch.testing.assert_close(found.model()(IDS), theirs(IDS).logits, rtol=1e-4, atol=1e-4)
    return found


# ---- nanoGPT ----


def write_nanogpt(file: Path, theirs: nn.Module, bias: bool = True, **more: Any) -> None:
    """As `train.py` saves a compiled model: its names are GPT-2's, its matrices (out, in), its buffers too."""
    matrices = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
    state = {name: t.T.contiguous() if name.endswith(matrices) else t for name, t in theirs.state_dict().items()}
    state["lm_head.weight"] = state["transformer.wte.weight"]
    state["transformer.h.0.attn.bias"] = torch.ones(1, 1, 96, 96)
    kept = {name: tensor for name, tensor in state.items() if bias or not name.endswith(".bias")}
    arguments = {"n_layer": 2, "n_head": 4, "n_embd": 32, "block_size": 96, "bias": bias, "vocab_size": VOCAB, **more}
    model = {f"_orig_mod.{name}": tensor for name, tensor in kept.items()}
    torch.save({"model": model, "model_args": {**arguments, "dropout": 0.2}, "optimizer": {}, "iter_num": 7}, file)


@pytest.mark.parametrize("bias", [True, False])
def test_a_checkpoint_of_nanogpt(bias: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = their_model({**GPT2, "activation_function": "gelu"})
    if not bias:
        for name, parameter in theirs.named_parameters():
            if name.endswith(".bias"):
                nn.init.zeros_(parameter)
    write_nanogpt(tmp_path / "ckpt.pt", theirs, bias)
    found = assert_is(tmp_path, theirs)
    assert is_missing(found.tokenizer)
    assert f"vocabulary of {VOCAB} is not beside it" in capsys.readouterr().err
    (tmp_path / "ckpt.pt").rename(tmp_path / "best.pt")
    assert_is(tmp_path / "best.pt", theirs)

    write_nanogpt(tmp_path / "ckpt.pt", theirs, bias, n_experts=3)
    with pytest.raises(UserError, match="no model for n_experts=3"):
        opened(tmp_path)


# ---- litgpt ----

MODULES = {
    "gpt_neox": {
        "attention.query_key_value": "attn.attn", "attention.dense": "attn.proj", "mlp.dense_h_to_4h": "mlp.fc",
        "mlp.dense_4h_to_h": "mlp.proj", "input_layernorm": "norm_1", "post_attention_layernorm": "norm_2",
    },
    "llama": {
        "self_attn.o_proj": "attn.proj", "mlp.gate_proj": "mlp.fc_1", "mlp.up_proj": "mlp.fc_2",
        "mlp.down_proj": "mlp.proj", "input_layernorm": "norm_1", "post_attention_layernorm": "norm_2",
        "self_attn.q_norm": "attn.norm_q", "self_attn.k_norm": "attn.norm_k",
    },
}  # fmt: skip
WHOLE = {
    "gpt_neox.embed_in": "transformer.wte", "gpt_neox.final_layer_norm": "transformer.ln_f", "embed_out": "lm_head",
    "model.embed_tokens": "transformer.wte", "model.norm": "transformer.ln_f", "lm_head": "lm_head",
}  # fmt: skip
LITGPT = {
    "pythia": (NEOX, {"rotary_percentage": 0.25, "intermediate_size": 96, "n_embd": 64, "n_head": 4}),
    "llama": (
        {**LLAMA, "rms_norm_eps": 1e-5},
        {
            "norm_class_name": "RMSNorm", "mlp_class_name": "LLaMAMLP", "parallel_residual": False, "bias": False,
            "rotary_percentage": 1.0, "n_embd": 48, "n_head": 6, "n_query_groups": 2, "intermediate_size": 80,
        },
    ),
    "qwen3": (
        {**QWEN3, "rms_norm_eps": 1e-5},
        {
            "norm_class_name": "RMSNorm", "mlp_class_name": "LLaMAMLP", "parallel_residual": False, "bias": False,
            "rotary_percentage": 1.0, "n_embd": 48, "n_head": 6, "n_query_groups": 2, "intermediate_size": 80,
            "head_size": 16, "norm_qk": True,
        },
    ),
}  # fmt: skip


def as_litgpt(theirs: nn.Module, by_group: bool) -> dict[str, Tensor]:
    config: Any = theirs.config
    state, made = theirs.state_dict(), {}
    modules = MODULES["gpt_neox" if config.model_type == "gpt_neox" else "llama"]
    for name, tensor in state.items():
        module, _, kind = name.rpartition(".")
        head, _, rest = module.partition(".layers.")
        layer, _, inside = rest.partition(".")
        if not rest:
            made[f"{WHOLE.get(module, 'lm_head')}.{kind}"] = tensor
        elif inside in modules:
            made[f"transformer.h.{layer}.{modules[inside]}.{kind}"] = tensor
        elif inside == "self_attn.q_proj":
            parts = [state[f"{head}.layers.{layer}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            if by_group:
                groups = zip(*(part.chunk(config.num_key_value_heads) for part in parts), strict=True)
                made[f"transformer.h.{layer}.attn.attn.{kind}"] = torch.cat([t for group in groups for t in group])
            else:
                made[f"transformer.h.{layer}.attn.qkv.{kind}"] = torch.cat(parts)
    return made


@pytest.mark.parametrize("case", LITGPT)
def test_a_checkpoint_of_litgpt(case: str, tmp_path: Path) -> None:
    """Of both orders of queries, keys and values that it has had."""
    settings, said = LITGPT[case]
    theirs = their_model(settings)
    config = {"name": case, "block_size": 96, "n_layer": 2, "padded_vocab_size": VOCAB, "attn_bias": False, **said}
    (tmp_path / "model_config.yaml").write_text(yaml.dump(config))
    for by_group in (True, False) if case != "pythia" else (True,):
        torch.save(as_litgpt(theirs, by_group), tmp_path / "lit_model.pth")
        assert_is(tmp_path, theirs)
    torch.save({"model": as_litgpt(theirs, case == "pythia")}, tmp_path / "lit_model.pth")
    assert_is(tmp_path / "lit_model.pth", theirs)
    (tmp_path / "model_config.yaml").write_text(yaml.dump({**config, "n_expert": 4, "mlp_class_name": "LLaMAMoE"}))
    with pytest.raises(UserError, match=r"n_expert=4 .*mlp_class_name='LLaMAMoE'"):
        opened(tmp_path)


# ---- PEFT ----


def write_adapter(folder: Path, theirs: nn.Module, targets: tuple[str, ...], **said: Any) -> None:
    """Random matrices beside some layers of `theirs`, which gets their update by hand: W + s B A."""
    folder.mkdir(exist_ok=True)
    draw = torch.Generator().manual_seed(3)
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 6, "base_model_name_or_path": "nowhere/base", **said}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    tensors = {}
    for name, module in theirs.named_modules():
        if name.rpartition(".")[2] not in targets:
            continue
        weight: Tensor = module.weight  # type: ignore[assignment]
        rank = config.get("rank_pattern", {}).get(name.rpartition(".")[2], config["r"])
        rows, columns = reversed(weight.shape) if config.get("fan_in_fan_out") else weight.shape
        a, b = torch.randn(rank, columns, generator=draw) / columns**0.5, torch.randn(rows, rank, generator=draw)
        tensors[f"base_model.model.{name}.lora_A.weight"], tensors[f"base_model.model.{name}.lora_B.weight"] = a, b
        update = b @ a * config["lora_alpha"] / (rank**0.5 if config.get("use_rslora") else rank)
        with torch.no_grad():
            weight += update.T if config.get("fan_in_fan_out") else update
    save_file(tensors, folder / "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("base", "targets", "said"),
    [
        (LLAMA, ("q_proj", "v_proj", "down_proj"), {}),
        (LLAMA, ("k_proj", "o_proj"), {"use_rslora": True, "rank_pattern": {"k_proj": 2}}),
        (GPT2, ("c_attn", "c_fc"), {"fan_in_fan_out": True}),
        (NEOX, ("query_key_value", "dense"), {}),
    ],
)
def test_an_adapter_is_merged_into_its_base(
    base: dict[str, Any], targets: tuple[str, ...], said: dict[str, Any], tmp_path: Path
) -> None:
    theirs = their_model(base)
    theirs.save_pretrained(tmp_path / "base")
    before = theirs(IDS).logits
    write_adapter(tmp_path / "adapter", theirs, targets, **said)
    assert (theirs(IDS).logits - before).abs().max() > 0.1
    assert_is(tmp_path / "adapter", theirs, base=tmp_path / "base")


def test_an_adapter_finds_its_base_or_asks_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = their_model(LLAMA)
    theirs.save_pretrained(tmp_path / "base-model")
    write_adapter(tmp_path / "adapter", theirs, ("q_proj",))
    with pytest.raises(UserError, match=r"PEFT adapter of nowhere/base, which is not here; .*base="):
        opened(tmp_path / "adapter")
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(config.read_text().replace("nowhere/base", "base-model"))
    assert_is(tmp_path / "adapter", theirs)
    assert "its base is" in capsys.readouterr().err
    with pytest.raises(UserError, match="base is that of a PEFT adapter"):
        opened(tmp_path / "base-model", base=tmp_path / "base-model")
    their_model({**LLAMA, "hidden_size": 96}).save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match=r"is no adapter of this base: .*q_proj.*expected"):
        opened(tmp_path / "adapter", base=tmp_path / "other").weights()
    config.write_text(json.dumps({**json.loads(config.read_text()), "use_dora": True}))
    with pytest.raises(UserError, match="use_dora=True"):
        opened(tmp_path / "adapter")


def test_an_adapter_beside_a_bundle_in_half_precision(tmp_path: Path) -> None:
    """The base's names are ours there; what is trained whole takes its place; each sum is rounded once."""
    theirs = their_model(LLAMA).bfloat16()
    theirs.save_pretrained(tmp_path / "base")
    base = opened(tmp_path / "base")
    write_bundle(tmp_path / "bundle", base.config, base.weights(), base.tokenizer, {})
    exact = their_model(LLAMA).bfloat16().float()
    write_adapter(tmp_path / "adapter", exact, ("q_proj", "up_proj"))
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    norm = torch.full((48,), 0.5)
    kept = {name: tensor.clone() for name, tensor in load_file(file).items()}  # which lie in the file to be written
    save_file({**kept, "base_model.model.model.norm.weight": norm}, file)
    weights = opened(tmp_path / "adapter", base=tmp_path / "bundle").weights()
    up = exact.get_parameter("model.layers.1.mlp.up_proj.weight").bfloat16()
    assert torch.equal(weights["transformer.blocks.1.mlp.up_proj.weight"], up)
    q = exact.get_parameter("model.layers.0.self_attn.q_proj.weight").bfloat16()
    assert torch.equal(weights["transformer.blocks.0.attention.qkv.weight"][: len(q)], q)
    assert torch.equal(weights["transformer.final_norm.weight"], norm.bfloat16())


# ---- what torch pickled ----


def test_weights_that_torch_pickled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whole or in shards, they are tensors alone, and read so; code is refused and does not run."""
    theirs = their_model(LLAMA)
    theirs.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    ids = IDS
    torch.testing.assert_close(loaded(tmp_path)(ids), theirs(ids).logits, rtol=1e-4, atol=1e-4)
    assert "no code in it runs" in capsys.readouterr().err

    names = sorted(tensors)
    places = {name: f"pytorch_model-0000{1 + (i % 2)}-of-00002.bin" for i, name in enumerate(names)}
    for shard in set(places.values()):
        torch.save({name: tensors[name] for name in names if places[name] == shard}, tmp_path / shard)
    (tmp_path / "pytorch_model.bin").unlink()
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    torch.testing.assert_close(loaded(tmp_path)(ids), theirs(ids).logits, rtol=1e-4, atol=1e-4)

    class Code:
        def __reduce__(self) -> Any:
            return (tmp_path / "ran").touch, ()

    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Code()))
    with pytest.raises(UserError, match="could run any code when read"):
        loaded(tmp_path)
    assert not (tmp_path / "ran").exists()
    with zipfile.ZipFile(tmp_path / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 20))
    with pytest.raises(UserError, match="is compressed"):
        loaded(tmp_path)


# ---- SentencePiece ----


@pytest.mark.skipif(not CASES_OF_OTHERS.is_dir(), reason="needs shared/cases")
def test_a_tokenizer_model_alone(tmp_path: Path) -> None:
    """The ids of the tokenizer.json that its publisher has beside it."""
    pytest.importorskip("sentencepiece", reason="the extra slm[hf] is not installed")
    whole = CASES_OF_OTHERS / "llama_spm_both"
    for name in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copy(whole / name, tmp_path)
    expected = HfGpt2Tokenizer.create([], name=str(whole))
    found = HfGpt2Tokenizer.create([], name=str(tmp_path))
    for text in ("Hello, world!  It's  12.", " a\n\tb ", "naïve 東京 🙂", "<s> and </s>"):
        assert found.encode(text) == expected.encode(text)
        assert found.decode(found.encode(text)) == expected.decode(expected.encode(text))
    assert (found.eos_id, found.begin_ids) == (expected.eos_id, expected.begin_ids)
    parts = ["a ", "</s>", " b c"]
    assert found.encode_parts(parts).ids == expected.encode_parts(parts).ids


# ---- folders of other tools ----


def touched(*names: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"{}")

    return make


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (touched("model_000100.pt", "meta_000100.json"), "a checkpoint of nanochat; slm has no model for it"),
        (touched("params.json", "consolidated.00.pth"), "its makers' own code reads it; take its Hugging Face files"),
        (touched(".metadata", "__0_0.distcp"), "sharded checkpoint of torch; put it together"),
        (touched("lit_model.pth.lora"), "an adapter of litgpt; merge it first"),
        (touched("dataset_info.json", "data.arrow"), "is a data set; it goes to data=datasets"),
        (touched("checkpoint-5/config.json", "checkpoint-9/config.json"), "give one: .*checkpoint-5, .*checkpoint-9"),
        (touched("snapshots/a1/config.json"), "give one: .*snapshots/a1"),
        (touched("tokenizer.json"), "holds a tokenizer and no model"),
        (touched("notes.txt"), "neither a run folder nor a model bundle"),
    ],
)
def test_a_folder_of_another_tool_is_named(make: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(UserError, match=message) as told:
        find_source(tmp_path)
    assert "\n" not in str(told.value)


def test_of_several_forms_the_likeliest_is_taken_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = their_model({**GPT2, "activation_function": "gelu"})
    theirs.save_pretrained(tmp_path)
    write_nanogpt(tmp_path / "ckpt.pt", theirs)
    assert find_source(tmp_path).format == "hf"
    assert "several forms (hf, nanogpt); hf is taken" in capsys.readouterr().err
    assert find_source(tmp_path, "nanogpt").format == "nanogpt"
    assert capsys.readouterr().err == ""
    with pytest.raises(UserError, match="is of the format hf, not litgpt"):
        find_source(tmp_path, "litgpt")
