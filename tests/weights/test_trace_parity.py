"""A trace of a model against what others see of its export: `transformers`, TransformerLens, nnsight."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from exported_models import GPT2, LLAMA, NEOX, QWEN3, TEXT, model, shape, tokenizer
from torch import Tensor

import slm
from slm.models.trace import Trace
from slm.weights.hugging_face import write_hugging_face

transformers = pytest.importorskip("transformers", reason="the extra slm[hf] is not installed")

CASES: dict[str, tuple[dict[str, Any], str]] = {
    "gpt2": (GPT2, "learned"),
    "llama": (LLAMA, "rotary"),
    "qwen3": (QWEN3, "rotary"),
    "gpt_neox": (NEOX, "rotary"),
    "mistral": ({**LLAMA, "sliding_window": 7}, "rotary"),
}
BLOCKS = {"gpt2": "transformer.h", "llama": "model.layers", "qwen3": "model.layers"}
WITHIN = 1e-4


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Trace]]:
    """The export of a case, and the trace of what `slm` reads of it."""

    def make(case: str) -> tuple[Path, Trace]:
        folder = tmp_path_factory.mktemp(case)
        config = shape(*CASES[case])
        write_hugging_face(folder / "hf", config, model(config).state_dict(), tokenizer(), {})
        return folder / "hf", slm.load(folder / "hf").trace(TEXT[:60])

    return make


def furthest(theirs: Tensor, ours: Tensor) -> float:
    assert theirs.shape == ours.shape
    return float((theirs.detach() - ours).abs().max())


@pytest.mark.parametrize("case", CASES)
def test_transformers(case: str, traced: Any) -> None:
    """Its hidden states, the last of which is behind the final norm, and the maps that its slow attention gives."""
    folder, ours = traced(case)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    with torch.no_grad():
        out = theirs(ours.input_ids, output_hidden_states=True, output_attentions=True)
    for one, other in zip(out.hidden_states, (*ours.hidden[:-1], ours.final), strict=True):
        assert furthest(one, other) < WITHIN
    for one, other in zip(out.attentions, ours.attention, strict=True):
        assert furthest(one, other) < WITHIN


@pytest.mark.nightly
@pytest.mark.filterwarnings("default")  # theirs
@pytest.mark.parametrize("case", BLOCKS)
def test_transformer_lens(case: str, traced: Any) -> None:
    """By its own names: the stream before and behind each block, what the two parts write, the pattern."""
    bridge = pytest.importorskip("transformer_lens.model_bridge", reason="transformer-lens is not installed")
    folder, ours = traced(case)
    logits, cache = bridge.TransformerBridge.boot_transformers(str(folder)).run_with_cache(ours.input_ids)
    for layer in range(2):
        theirs = {
            "hook_resid_pre": ours.hidden[layer],
            "hook_resid_post": ours.hidden[layer + 1],
            "attn.hook_pattern": ours.attention[layer],
            "hook_attn_out": ours.attention_out[layer],
            "hook_mlp_out": ours.mlp_out[layer],
        }
        for name, tensor in theirs.items():
            assert furthest(cache[f"blocks.{layer}.{name}"], tensor) < WITHIN, name
    assert furthest(logits, ours.logits) < WITHIN


@pytest.mark.nightly
@pytest.mark.filterwarnings("default")  # theirs
@pytest.mark.parametrize("case", BLOCKS)
def test_nnsight(case: str, traced: Any) -> None:
    """The output of each of the modules of `transformers`, caught as it runs."""
    nnsight: Any = pytest.importorskip("nnsight", reason="nnsight is not installed")
    folder, ours = traced(case)
    wrapped = nnsight.TransformersModel(str(folder), task="text-generation", dispatch=True)
    blocks = wrapped.get(BLOCKS[case])
    with torch.no_grad(), wrapped.trace(ours.input_ids):
        first = blocks[0].output.save()
        second = blocks[1].output.save()
        logits = wrapped.lm_head.output.save()
    seen: Mapping[int, Any] = {1: first, 2: second}
    for layer, written in seen.items():
        assert furthest(written[0] if isinstance(written, tuple) else written, ours.hidden[layer]) < WITHIN
    assert furthest(logits, ours.logits) < WITHIN
