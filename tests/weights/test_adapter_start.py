"""A PEFT adapter that is gone on with: training begins where it left off, its matrices in the place of new ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from exported_models import GPT2, LLAMA, NEOX, QWEN3, model, shape, tokenizer
from safetensors.torch import load_file, save_file
from test_other_tools import write_adapter

import slm
from slm.errors import UserError
from slm.models.modules.lora import add_lora
from slm.weights.adapter_start import begin_with_adapter
from slm.weights.fine_tuning import Lora
from slm.weights.hugging_face import write_hugging_face

transformers = pytest.importorskip("transformers", reason="the extra slm[hf] is not installed")

IDS = torch.arange(1, 25)[None]
CASES: dict[str, Any] = {
    "an A for each of three": (shape(LLAMA), ("q_proj", "k_proj", "v_proj", "down_proj"), 12, {}),
    "two of the three": (shape(QWEN3), ("q_proj", "v_proj"), 8, {}),
    "ranks of their own": (
        shape(LLAMA), ("k_proj", "o_proj"), 4, {"use_rslora": True, "rank_pattern": {"k_proj": 2}}
    ),
    "matrices the other way round": (shape(GPT2, "learned"), ("c_attn", "c_fc"), 4, {"fan_in_fan_out": True}),
    "rows by head": (shape({**NEOX, "activation": "gelu"}), ("query_key_value", "dense"), 4, {}),
}  # fmt: skip


def written(folder: Path, case: str) -> Any:
    """The base, and of `transformers` with the adapter's update in its weights."""
    config, targets, _, said = CASES[case]
    write_hugging_face(folder / "base", config, model(config).state_dict(), tokenizer(), {})
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder / "base")
    write_adapter(folder / "adapter", theirs, targets, **said)
    return theirs


def with_lora(case: str, rank: int, targets: Any = "all") -> Any:
    ours = model(CASES[case][0])
    lora = Lora(rank=rank, alpha=3.0, targets=targets)
    add_lora(ours, lora.rank, lora.scale, 0.0, lora.targets)
    return ours


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("more", [0, 3])
def test_it_begins_where_the_adapter_left_off(case: str, more: int, tmp_path: Path) -> None:
    """Whatever the scale here is; with a higher rank, what is left can learn, too."""
    theirs, rank = written(tmp_path, case), CASES[case][2]
    ours = with_lora(case, rank + more)
    begin_with_adapter(ours, CASES[case][0], tmp_path / "adapter")
    torch.testing.assert_close(ours(IDS), theirs(IDS).logits, rtol=1e-4, atol=1e-4)
    assert (ours(IDS) - model(CASES[case][0])(IDS)).abs().max() > 0.1, "an adapter that does nothing"
    used = [name for name, one in ours.named_parameters() if name.endswith("lora_b") and one.any()]
    assert used
    assert all(ours.get_parameter(name.replace("lora_b", "lora_a"))[rank:].any(dim=1).all() for name in used)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    case = "an A for each of three"
    written(tmp_path, case)
    config, adapter = CASES[case][0], tmp_path / "adapter"
    with pytest.raises(UserError, match=r"adapter.rank=8: .* needs 12 .*; set adapter.rank=12"):
        begin_with_adapter(with_lora(case, 8), config, adapter)
    with pytest.raises(UserError, match=r"adapts 'down_proj', which adapter.targets leaves out"):
        begin_with_adapter(with_lora(case, 12, ("qkv",)), config, adapter)
    other = "matrices the other way round"
    with pytest.raises(UserError, match=r"is no adapter of model.weights: they have no model.layers.0"):
        begin_with_adapter(with_lora(other, 12), CASES[other][0], adapter)
    tensors = load_file(adapter / "adapter_model.safetensors")
    whole = {"base_model.model.lm_head.weight": torch.zeros(3, 3)}
    save_file({**tensors, **whole}, adapter / "adapter_model.safetensors")
    with pytest.raises(UserError, match="more than LoRA of linear layers"):
        begin_with_adapter(with_lora(case, 12), config, adapter)


def test_a_run_goes_on_with_it(run_cli: Any, tiny: tuple[str, ...], tiny_run: Path, tmp_path: Path) -> None:
    """What one run left by to=peft, another goes on with: at a rate that moves nothing it ends as it began. The run is
    resumed without the adapter's folder."""
    own = [s for s in tiny if not s.startswith(("model.", "tokenizer", "optimizer.lr"))]
    lora = ("adapter=lora", "adapter.rank=4", f"model.weights={tiny_run}")
    assert run_cli("train", *own, *lora, "run_dir=first", "optimizer.lr=0.01").status == 0
    assert run_cli("convert", "source=first", "to=peft", "out=adapter").status == 0
    still = (*own, *lora, "adapter.weights=adapter", "optimizer.lr=1e-30", "run_dir=second")
    outcome = run_cli("train", *still, "stop_after=2")
    assert outcome.status == 0, outcome.err
    assert "adapter: 4 layers go on from" in outcome.err
    (tmp_path / "adapter").rename(tmp_path / "gone")
    outcome = run_cli("train", "resume=second")
    assert outcome.status == 0, outcome.err
    first, second = (slm.load(tmp_path / name, device="cpu").model for name in ("first", "second"))
    torch.testing.assert_close(second(IDS[:, :16]), first(IDS[:, :16]), rtol=1e-4, atol=1e-4)
    refused = run_cli("train", *still[:-1], "run_dir=third")
    assert refused.status == 2
    assert "adapter.weights: 'adapter' holds no PEFT adapter (adapter_config.json)" in refused.err
