"""Files that other versions of other programs wrote: the logits that `transformers` reads out of them, or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_hugging_face_parity import GPT2, LLAMA, NEOX, QWEN3, VOCAB, loaded, their_model

from slm.errors import UserError
from slm.models.config import ModelConfig
from slm.weights.hugging_face import family_of, read_hugging_face

transformers = pytest.importorskip("transformers", reason="the extra slm[hf] is not installed")

SLIDING = {**QWEN3, "use_sliding_window": True, "sliding_window": 3}
YARN = {"rope_type": "yarn", "factor": 4.0}
FORMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "rope_scaling comes before rope_parameters": (LLAMA, {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
    "the older name of its type": (LLAMA, {"rope_scaling": {"type": "linear", "factor": 4.0}}),
    "a base within the scaling": (
        LLAMA, {"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2.0, "rope_theta": 50.0}}
    ),
    "two bases": (LLAMA, {"rope_theta": 50.0}),
    "version 4": (LLAMA, {"rope_parameters": None, "rope_theta": 50.0, "rope_scaling": None}),
    "the original length beside the scaling": (
        LLAMA, {"rope_scaling": YARN, "original_max_position_embeddings": 8}
    ),
    "yarn without a factor": (
        LLAMA, {"rope_scaling": {**YARN, "factor": None, "original_max_position_embeddings": 24}}
    ),
    "version 4's partial rotary": (NEOX, {"rope_parameters": None, "rotary_pct": 0.5, "rotary_emb_base": 50}),
    "no layer slides": (SLIDING, {"layer_types": ["full_attention"] * 2}),
    "one layer slides": (SLIDING, {"layer_types": ["full_attention", "sliding_attention"]}),
    "every layer slides": (SLIDING, {"layer_types": ["sliding_attention"] * 2}),
    "the first sliding layer is beyond the last": (SLIDING, {"layer_types": None, "max_window_layers": 28}),
    "every layer slides, version 4": (SLIDING, {"layer_types": None, "max_window_layers": 0}),
}  # fmt: skip


def changed(folder: Path, settings: dict[str, Any]) -> None:
    file = folder / "config.json"
    values = {**json.loads(file.read_text()), **settings}
    file.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_configuration_means_what_it_means_to_transformers(form: str, tmp_path: Path) -> None:
    """``layer_types`` was not read, and ``rope_parameters`` hid ``rope_scaling``: other logits, and no error."""
    settings, change = FORMS[form]
    their_model(settings).save_pretrained(tmp_path)
    changed(tmp_path, change)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    ids = torch.randint(1, VOCAB, (2, 40), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(loaded(tmp_path)(ids), theirs(ids).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kinds", [["full_attention"], ["full_attention", "chunked_attention"], "sliding_attention"])
def test_kinds_of_layers_that_are_none(kinds: Any, tmp_path: Path) -> None:
    their_model(SLIDING).save_pretrained(tmp_path)
    changed(tmp_path, {"layer_types": kinds})
    with pytest.raises(UserError, match=r"layer_types=.*sliding_attention and full_attention"):
        read_hugging_face(tmp_path)


def gpt2_mask(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    masks = {f"transformer.h.{i}.attn.bias": torch.ones(1, 1, 96, 96).tril().to(dtype) for i in range(2)}
    return {**masks, "transformer.h.0.attn.masked_bias": torch.tensor(-1e4)}


def neox_mask(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    masks = {f"gpt_neox.layers.{i}.attention.bias": torch.ones(1, 1, 96, 96).tril().to(dtype) for i in range(2)}
    return {**masks, "gpt_neox.layers.0.attention.rotary_emb.inv_freq": torch.ones(2)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.bool])
@pytest.mark.parametrize(("settings", "masks"), [(GPT2, gpt2_mask), (NEOX, neox_mask)])
def test_masks_beside_the_weights_are_left_out_of_any_type(
    tmp_path: Path, settings: dict[str, Any], masks: Callable[[torch.dtype], dict[str, torch.Tensor]], dtype: Any
) -> None:
    """Pythia's files hold masks of booleans; they were refused for their type before they were left out."""
    theirs = their_model(settings)
    theirs.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({**weights, **masks(dtype)}, tmp_path / "model.safetensors")
    ids = torch.arange(1, 20)[None]
    ours = loaded(tmp_path)
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.float32}
    torch.testing.assert_close(ours(ids), theirs(ids).logits, rtol=1e-4, atol=1e-4)


def test_a_tied_head_stored_a_second_time_must_be_the_embedding(tmp_path: Path) -> None:
    """Left out where it is; where it is not, one of the two numbers would be dropped in silence."""
    theirs = their_model({**LLAMA, "tie_word_embeddings": True})
    theirs.save_pretrained(tmp_path)
    file, name = tmp_path / "model.safetensors", "model.embed_tokens.weight"
    stored = load_file(file)
    save_file({**stored, "lm_head.weight": stored[name].clone()}, file)
    assert "lm_head.weight" not in read_hugging_face(tmp_path)[2].stored
    save_file({**stored, "lm_head.weight": stored[name] + 1}, file)
    with pytest.raises(UserError, match=rf"'lm_head\.weight' differs from '{name}'.*correct tie_word_embeddings"):
        read_hugging_face(tmp_path)


def test_shards_hold_what_their_index_lists_and_each_tensor_once(tmp_path: Path) -> None:
    their_model(LLAMA).save_pretrained(tmp_path, max_shard_size="20KB")
    index = tmp_path / "model.safetensors.index.json"
    listed = json.loads(index.read_text())
    first = sorted(set(listed["weight_map"].values()))[0]
    moved = {**listed, "weight_map": {**listed["weight_map"], "model.more.weight": first}}
    index.write_text(json.dumps(moved))
    with pytest.raises(UserError, match=rf"lists 'model\.more\.weight' in {first}, which does not hold it"):
        read_hugging_face(tmp_path)
    index.write_text(json.dumps(listed))
    name, shard = next((name, shard) for name, shard in listed["weight_map"].items() if shard != first)
    save_file({**load_file(tmp_path / first), name: load_file(tmp_path / shard)[name]}, tmp_path / first)
    with pytest.raises(UserError, match=f"holds '{name}', which another file"):
        read_hugging_face(tmp_path)


def test_a_family_that_cannot_even_hold_the_heads_is_passed_over() -> None:
    """Heads apart from the width: GPT-NeoX read back no model at all, and that error hid that Qwen3 can hold it."""
    transformer = {"dim": 30, "n_layers": 1, "n_heads": 4, "head_dim": 8, "mlp": "glu", "activation": "silu"}
    no_biases = {"bias": False, "qkv_bias": False}
    values = {
        "name": "gpt",
        "params": {"max_seq_len": 16, "vocab_size": VOCAB},
        "modules": {
            "position_embedding": {"kind": "rotary"},
            "transformer": {**transformer, **no_biases, "norm": "rms_norm", "qk_norm": True},
        },
    }
    config = ModelConfig.from_dict(values)
    family = family_of(config)
    assert family.model_type == "qwen3"
    theirs = family.write_config(config)
    transformers.AutoConfig.for_model(theirs.pop("model_type"), **theirs)
    values["modules"]["transformer"]["qk_norm"] = False  # Llama's, whose configuration transformers refuses
    family = family_of(ModelConfig.from_dict(values))
    assert family.model_type == "mistral"
    theirs = family.write_config(ModelConfig.from_dict(values))
    transformers.AutoConfig.for_model(theirs.pop("model_type"), **theirs)
