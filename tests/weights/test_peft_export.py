"""What LoRA trained leaves alone, and `peft` beside the base computes what the run's merged model does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from exported_models import GPT2, LLAMA, NEOX, model, shape, tokenizer

import slm
from slm.errors import UserError
from slm.models.modules.lora import add_lora, merged_state
from slm.weights.export.peft import write_peft
from slm.weights.fine_tuning import Lora
from slm.weights.hugging_face import write_hugging_face
from slm.weights.pretrained import lay_out, take_weights

transformers = pytest.importorskip("transformers", reason="the extra slm[hf] is not installed")
pytestmark = pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing:FutureWarning"
)  # peft 0.18 on transformers 5

CASES = {
    "gpt2": shape(GPT2, "learned"),
    "llama": shape(LLAMA),
    "gpt_neox": shape({**NEOX, "activation": "gelu"}),
    "slm": shape({"activation": "relu2", "norm": "rms_norm"}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("targets", ["all", ("out_proj",)], ids=["all", "one"])
def test_beside_its_base_it_is_the_merged_model(
    case: str, targets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Queries, keys and values have one A here, each its own there; GPT-2's matrices lie the other way round."""
    peft = pytest.importorskip("peft", reason="peft is not installed")
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    config, lora = CASES[case], Lora(rank=3, alpha=7.0, rslora=True, targets=targets)
    trained = model(config)
    write_hugging_face(tmp_path / "base", config, trained.state_dict(), tokenizer(), {})
    add_lora(trained, lora.rank, lora.scale, 0.0, lora.targets)
    generator = torch.Generator().manual_seed(3)
    for name, parameter in trained.named_parameters():
        if ".lora_" in name:
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    write_peft(tmp_path / "adapter", config, lora, trained.state_dict(), tokenizer(), str(tmp_path / "base"))
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base", trust_remote_code=True)
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    merged = lay_out(config)
    take_weights(merged, merged_state(trained), torch.device("cpu"))
    ids = torch.arange(1, 25)[None]
    with torch.no_grad():
        expected = merged.eval()(ids)
        assert (expected - model(config)(ids)).abs().max() > 0.1, "an adapter that does nothing"
        torch.testing.assert_close(theirs(ids).logits, expected, rtol=1e-4, atol=1e-4)


def test_of_a_run(run_cli: Any, tiny: tuple[str, ...], tiny_run: Path, tmp_path: Path) -> None:
    """Its best checkpoint's, with the tokenizer; beside what it began with it is the model that the run holds."""
    own = [s for s in tiny if not s.startswith(("model.", "tokenizer", "optimizer.lr"))]
    lora = ("adapter=lora", "adapter.rank=4", f"model.weights={tiny_run}")
    outcome = run_cli("train", *own, *lora, "run_dir=tuned")
    assert outcome.status == 0, outcome.err
    assert ", peft" in next(line for line in outcome.err.splitlines() if line.startswith("leaves as"))
    done = run_cli("convert", "source=tuned", "to=peft", "out=adapter")
    assert done.status == 0, done.err
    said = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert (said["r"], said["lora_alpha"], said["fan_in_fan_out"]) == (4, 16.0, True)
    assert said["base_model_name_or_path"] == str(tiny_run)
    assert (tmp_path / "adapter/tokenizer.json").is_file()
    assert json.loads(done.out)["parameters"] == 4 * ((32 + 96) + (32 + 32) + 2 * (32 + 128))
    peft = pytest.importorskip("peft", reason="peft is not installed")
    assert run_cli("convert", f"source={tiny_run}", "to=hf", "out=base").status == 0
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    ids = torch.arange(1, 17)[None]
    ours = slm.load(tmp_path / "tuned", device="cpu").model
    torch.testing.assert_close(theirs(ids).logits, ours(ids), rtol=1e-4, atol=1e-4)


def test_what_is_more_than_an_adapter_is_refused(tmp_path: Path) -> None:
    config = CASES["llama"]
    with pytest.raises(UserError, match="also_train"):
        write_peft(tmp_path / "x", config, Lora(also_train=("token_embedding",)), {}, tokenizer(), "base")
