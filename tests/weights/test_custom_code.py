"""Models that no family of `transformers` has leave with a modelling file of their own, and come back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from exported_models import LLAMA, model, shape, tokenizer

import slm
from slm.weights.hugging_face import write_hugging_face

transformers = pytest.importorskip("transformers", reason="the extra slm[hf] is not installed")

MODERN = {"norm": "rms_norm", "qk_norm": True, "activation": "relu2", "bias": False, "qkv_bias": False}
YARN = {"kind": "yarn", "factor": 3.0, "original_max_seq_len": 16}
CASES: dict[str, Any] = {
    "the modern recipe": shape(MODERN, output_projection={"tie_weights": False}),
    "all of modded-nanogpt": shape(
        {**MODERN, "embedding_skip": True, "n_kv_heads": 2, "sliding_window": 9},
        token_embedding={"values": True},
        output_projection={"softcap": 15.0},
    ),
    "GPT-1's norms": shape({"activation": "gelu", "prenorm": False}, "sinusoidal"),
    "no positions": shape({"activation": "relu", "mlp": "glu"}, "none"),
    "learned, parallel, rms": shape({"norm": "rms_norm", "parallel_residual": True}, "learned"),
    "scaled, in part": shape({**LLAMA, "activation": "relu2", "mlp": "mlp"}, rotary={"fraction": 0.5, "scaling": YARN}),
}


@pytest.mark.parametrize("case", CASES)
def test_logits_generation_and_the_way_back(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits are ours; the cache changes no token; padding on the left changes none of the rest; slm reads it again."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    ours, folder = model(CASES[case]), tmp_path / "theirs"
    write_hugging_face(folder, CASES[case], ours.state_dict(), tokenizer(), {})
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()
    ids = torch.randint(1, ours.config.vocab_size, (2, 20), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = ours(ids), theirs(ids)
        assert expected.std() > 0.3, "weights too small to show a mistake"
        torch.testing.assert_close(found.logits, expected, rtol=1e-4, atol=1e-4)
        padding = torch.ones_like(ids)
        padding[0, :6] = 0
        padded = theirs(ids, attention_mask=padding).logits[0, 6:]
        torch.testing.assert_close(padded, ours(ids[:1, 6:])[0], rtol=1e-4, atol=1e-4)
        again = slm.load(folder, device="cpu").model
        torch.testing.assert_close(again(ids), expected)
    loss = theirs(ids, labels=ids).loss
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(expected[:, :-1].mT, ids[:, 1:]))
    settings = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    with_cache, without = (theirs.generate(ids, **settings, use_cache=cached) for cached in (True, False))
    assert with_cache.shape == (2, 32)
    assert torch.equal(with_cache, without)


def test_the_folder_needs_nothing_of_slm(tmp_path: Path) -> None:
    config = CASES["the modern recipe"]
    write_hugging_face(tmp_path / "x", config, model(config).state_dict(), tokenizer(), {})
    code = (tmp_path / "x/modeling_slm.py").read_text()
    assert "import slm" not in code
    assert "from slm" not in code
    said = json.loads((tmp_path / "x/config.json").read_text())
    assert (said["model_type"], said["num_hidden_layers"], said["tie_word_embeddings"]) == ("slm", 2, False)
    assert "trust_remote_code=True" in (tmp_path / "x/README.md").read_text()


def test_what_a_family_has_leaves_as_that(tmp_path: Path) -> None:
    """ReLU² in a GPT-2 is one to transformers, too; older readers ask for n_ctx."""
    config = shape({"activation": "relu2"}, "learned")
    write_hugging_face(tmp_path / "x", config, model(config).state_dict(), tokenizer(), {})
    said = json.loads((tmp_path / "x/config.json").read_text())
    assert (said["model_type"], said["activation_function"], said["n_ctx"]) == ("gpt2", "relu2", 48)
    assert not (tmp_path / "x/modeling_slm.py").exists()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "x").eval()
    ids = torch.arange(1, 21)[None]
    torch.testing.assert_close(theirs(ids).logits, model(config)(ids), rtol=1e-4, atol=1e-4)
