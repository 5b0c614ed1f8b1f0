"""Training from weights that exist: their shape, their tokenizer, and only what was asked for changes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from slm.errors import UserError
from slm.models.config import ModelConfig
from slm.models.contract import build_model
from slm.tokenizers.byte import ByteTokenizer
from slm.tokenizers.pieces import SimpleTokenizer
from slm.weights.bundle import write_bundle
from slm.weights.fine_tuning import fine_tuned_config
from slm.weights.open_model import find_source, open_source
from slm.weights.pretrained import check_same_tokens, fine_tuned_model

VOCAB, LENGTH, DIM = 258, 16, 32


def shape(position: str = "learned", tie: bool = True, **params: Any) -> ModelConfig:
    return ModelConfig.from_dict(
        {
            "name": "gpt",
            "params": {"max_seq_len": LENGTH, "vocab_size": VOCAB, "vocab_multiple": 1, **params},
            "modules": {
                "position_embedding": {"kind": position},
                "transformer": {"dim": DIM, "n_layers": 1, "n_heads": 2},
                "output_projection": {"tie_weights": tie},
            },
        }
    )


def settings_of_the_run(tiny: tuple[str, ...]) -> list[str]:
    return [s for s in tiny if not s.startswith(("model.", "tokenizer"))]


def test_the_shape_the_tokenizer_and_the_loss_are_the_weights_own(
    run_cli: Any, tiny: tuple[str, ...], tiny_run: Path, tmp_path: Path, metrics_of: Any
) -> None:
    """Nothing but ``model.weights`` is named; with no learning rate to speak of, the run is as good as its source."""
    outcome = run_cli(
        "train", *settings_of_the_run(tiny), f"model.weights={tiny_run}", "run_dir=tuned", "optimizer.lr=1e-12",
        "trainer.max_steps=1", "trainer.val_every=1", "data.seq_len=16",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    source = json.loads((tiny_run / "summary.json").read_text())
    tuned = json.loads((tmp_path / "tuned" / "summary.json").read_text())
    assert tuned["best_val_loss"] == pytest.approx(source["best_val_loss"], abs=1e-5)
    configs = [json.loads((run / "model/config.json").read_text())["model"] for run in (tiny_run, tmp_path / "tuned")]
    assert configs[0] == configs[1]


def test_frozen_modules_stay_and_others_move_and_a_resumed_run_goes_on(
    run_cli: Any, tiny: tuple[str, ...], tiny_run: Path, tmp_path: Path, metrics_of: Any
) -> None:
    frozen = "model.modules.transformer.freeze=true"
    run = (*settings_of_the_run(tiny), f"model.weights={tiny_run}", frozen, "optimizer.lr=0.01")
    assert run_cli("train", *run, "run_dir=whole").status == 0
    before = load_file(tiny_run / "model/model.safetensors")
    after = load_file(tmp_path / "whole/model/model.safetensors")
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {name for name in before if name.startswith("transformer.")}

    assert run_cli("train", *run, "run_dir=parts", "stop_after=3").status == 0
    outcome = run_cli("train", "resume=parts")
    assert outcome.status == 0, outcome.err
    assert metrics_of(tmp_path / "parts") == metrics_of(tmp_path / "whole")


@pytest.mark.nightly
@pytest.mark.parametrize("new_shape", [(), ("model.params.max_seq_len=24", "model.extend_positions=linear")])
def test_a_run_is_resumed_although_its_source_has_gone(
    invoke: Any, tiny: tuple[str, ...], tiny_run: Path, tmp_path: Path, metrics_of: Any, new_shape: tuple[str, ...]
) -> None:
    """It opened the source again, by the path typed at its start; the weights come from the checkpoint."""
    shutil.copytree(tiny_run / "model", tmp_path / "source")
    run = (*settings_of_the_run(tiny), "model.weights=./source", "model.params.dropout=0.1", *new_shape)
    assert invoke(tmp_path, "train", *run, "run_dir=whole").status == 0
    assert invoke(tmp_path, "train", *run, "run_dir=parts", "stop_after=3").status == 0
    shutil.rmtree(tmp_path / "source")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    outcome = invoke(elsewhere, "train", "resume=../parts")
    assert outcome.status == 0, outcome.err
    assert metrics_of(tmp_path / "parts") == metrics_of(tmp_path / "whole")
    kept, last = (load_file(tmp_path / run / "model/model.safetensors") for run in ("parts", "whole"))
    assert all(torch.equal(kept[name], last[name]) for name in last)
    assert load_file(tmp_path / "parts/start/model.safetensors") == {}
    again = invoke(tmp_path, "train", *run, "run_dir=new")
    assert (again.status, "there is no folder './source'" in again.err) == (2, True), "another run needs the weights"


@pytest.mark.nightly
def test_a_run_in_a_new_folder_from_an_old_checkpoint_keeps_its_start_too(
    invoke: Any, tiny: tuple[str, ...], tiny_run: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_run / "model", tmp_path / "source")
    run = (*settings_of_the_run(tiny), "model.weights=./source", "run_dir=first", "stop_after=2")
    assert invoke(tmp_path, "train", *run).status == 0
    shutil.rmtree(tmp_path / "source")
    assert invoke(tmp_path, "train", "resume=first", "run_dir=second", "stop_after=4").status == 0
    shutil.rmtree(tmp_path / "first")
    outcome = invoke(tmp_path, "train", "resume=second")
    assert outcome.status == 0, outcome.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("model=pretrained",), "model.weights is missing; set it"),
        (("model=gpt2_base", "model.weights=RUN"), "model.weights have another shape than model"),
        (("model.weights=RUN", "+model.params.vocab_size=300"), "model.params.vocab_size (300) is not the weights'"),
        (("model.weights=RUN", "model.params.max_seq_len=32"), "(32) is above the weights' 16; to reach it, name a"),
        (
            ("model.weights=RUN", "model.params.max_seq_len=32", "model.extend_positions=yarn"),
            "does not go with learned positions (model.extend_positions=linear)",
        ),
        (("model.weights=RUN", "model.extend_positions=linear"), "has nothing to do"),
        (("model.weights=RUN", "model.extend_positions=liner"), "should be 'linear', 'ntk' or 'yarn'"),
        (("model.weights=RUN", "model.modules.transformer.dim=64"), "unknown key 'model.modules.transformer.dim'"),
        (("model.weights=RUN", "tokenizer=simple"), "the tokenizer is not the weights'"),
        (("model.weights=./missing",), "there is no folder './missing'"),
        (("model.weights=RUN", "trainer.max_steps=0"), "trainer.max_steps should be greater than 0"),
    ],
)  # fmt: skip
def test_mistakes(
    run_cli: Any, tiny: tuple[str, ...], tiny_run: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    given = [argument.replace("RUN", str(tiny_run)) for argument in arguments]
    outcome = run_cli("train", *settings_of_the_run(tiny), *given)
    assert outcome.status == 2
    assert message in outcome.err
    assert len(outcome.err.splitlines()) <= 3, outcome.err  # the data's and tokenizer's notices may come before
    assert not list(tmp_path.iterdir())


def opened(folder: Path, config: ModelConfig) -> Any:
    torch.manual_seed(0)
    model = build_model(config)
    write_bundle(folder, config, model.state_dict(), ByteTokenizer(), {})
    return open_source(find_source(folder))


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("grow", ["mean", "normal"])
def test_new_tokens_begin_like_the_others_and_the_known_stay(tmp_path: Path, tie: bool, grow: str) -> None:
    start = opened(tmp_path / "source", shape(tie=tie))
    config = fine_tuned_config(start.config, {"params": {"vocab_multiple": 64}}, None).with_vocab_size(300)
    model = fine_tuned_model(start, config, grow)
    known = start.weights()
    for name in ["token_embedding.weight"] + ([] if tie else ["output_projection.weight"]):
        rows, before = model.state_dict()[name], known[name]
        assert rows.shape == (320, DIM)
        assert torch.equal(rows[:VOCAB], before)
        assert not rows[300:].any()
        new = rows[VOCAB:300]
        torch.testing.assert_close(new.mean(0), before.mean(0), atol=0.02, rtol=0)
        assert bool(new.std(0).max() < 1e-6) == (grow == "mean")
    ids = torch.arange(10)[None]
    torch.testing.assert_close(model.eval()(ids)[..., :VOCAB], start.model()(ids), rtol=1e-5, atol=1e-5)
    assert model.get_parameter("token_embedding.weight").requires_grad


def test_longer_learned_positions_lie_between_the_old(tmp_path: Path) -> None:
    """Position interpolation of a table: the first and the last row stay, the others are on the way."""
    start = opened(tmp_path / "source", shape())
    config = fine_tuned_config(start.config, {"params": {"max_seq_len": 2 * LENGTH - 1}}, "linear")
    new = fine_tuned_model(start, config, None).state_dict()["position_embedding.weight"]
    old = start.weights()["position_embedding.weight"]
    torch.testing.assert_close(new[::2], old)
    torch.testing.assert_close(new[1::2], (old[1:] + old[:-1]) / 2)
    shorter = fine_tuned_config(start.config, {"params": {"max_seq_len": 5}}, None)
    assert torch.equal(fine_tuned_model(start, shorter, None).state_dict()["position_embedding.weight"], old[:5])


def test_longer_rotary_positions_by_each_method(tmp_path: Path) -> None:
    """``linear`` at twice the length turns position 2p as the weights knew p; ``ntk`` keeps the shortest wave and
    doubles the longest; ``yarn`` keeps the original length at hand."""
    from slm.models.modules.embeddings import frequencies

    source = shape("rotary")
    dim = source.modules.rotary_dim
    before, _ = frequencies(source.modules.position_embedding.rotary, dim)
    after = {}
    for method in ("linear", "ntk", "yarn"):
        config = fine_tuned_config(source, {"params": {"max_seq_len": 2 * LENGTH}}, method)
        after[method], factor = frequencies(config.modules.position_embedding.rotary, dim)
        assert (factor > 1) == (method == "yarn")
    torch.testing.assert_close(after["linear"], before / 2)
    assert (after["ntk"][0], after["ntk"][-1]) == (before[0], pytest.approx(before[-1] / 2))
    assert bool(((after["yarn"] <= before) & (after["yarn"] >= before / 2 - 1e-9)).all())
    scaled = fine_tuned_config(source, {"params": {"max_seq_len": 2 * LENGTH}}, "linear")
    with pytest.raises(UserError, match="are scaled already"):
        fine_tuned_config(scaled, {"params": {"max_seq_len": 4 * LENGTH}}, "yarn")


def test_one_pair_of_rotary_dimensions_has_no_longest_wave() -> None:
    """``ntk`` divided by zero."""
    one_pair = shape("rotary").to_dict()
    one_pair["modules"]["transformer"]["head_dim"] = 2
    with pytest.raises(UserError, match="only one pair"):
        fine_tuned_config(ModelConfig.from_dict(one_pair), {"params": {"max_seq_len": 2 * LENGTH}}, "ntk")


def test_another_original_length_is_another_shape() -> None:
    """``original_max_seq_len`` ends in ``max_seq_len``, and so passed for a thing that training decides."""
    values = [shape("rotary").to_dict() for _ in range(2)]
    for value, original in zip(values, (8, 12), strict=True):
        scaling = {"kind": "yarn", "factor": 2.0, "original_max_seq_len": original}
        value["modules"]["position_embedding"]["rotary"]["scaling"] = scaling
    source = ModelConfig.from_dict(values[0])
    assert fine_tuned_config(source, values[0], None) == source
    with pytest.raises(UserError, match=r"original_max_seq_len=12 \(the weights': 8\)"):
        fine_tuned_config(source, values[1], None)


def test_a_fine_tuned_run_can_be_evaluated_again(run_cli: Any, tiny: tuple[str, ...], tiny_run: Path) -> None:
    """Its configuration leaves ``data.seq_len`` to the weights: ``slm-evaluate`` refused the null it found there."""
    run = (*settings_of_the_run(tiny), f"model.weights={tiny_run}", "run_dir=tuned")
    unset = [setting for setting in run if not setting.startswith("data.seq_len")]
    assert run_cli("train", *unset).status == 0
    outcome = run_cli("evaluate", "run=tuned")
    assert outcome.status == 0, outcome.err
    assert json.loads(outcome.out)["seq_len"] == LENGTH


def test_windows_of_a_model_that_reaches_far_are_short_unless_asked_for(
    run_cli: Any, text_file: Path, tmp_path: Path
) -> None:
    """``slm-evaluate model_dir=…`` of a published model took windows of 131,072 tokens, sixteen at a time."""
    opened(tmp_path / "far", shape("rotary", max_seq_len=1500))
    command = ("evaluate", "model_dir=far", "data=text", f"data.path={text_file}")
    outcome = run_cli(*command)
    assert json.loads(outcome.out)["seq_len"] == 1024
    assert "windows of 1,024 tokens; data.seq_len sets more, up to the model's 1,500" in outcome.err
    asked = run_cli(*command, "data.seq_len=1500")
    assert json.loads(asked.out)["seq_len"] == 1500
    assert "windows of" not in asked.err


def test_a_loss_that_is_no_number_is_null(run_cli: Any, text_file: Path, tmp_path: Path) -> None:
    """``NaN`` is not JSON: all but Python refuse the whole line."""
    torch.manual_seed(0)
    weights = build_model(shape()).state_dict()
    weights["token_embedding.weight"].fill_(torch.nan)
    write_bundle(tmp_path / "broken", shape(), weights, ByteTokenizer(), {})
    outcome = run_cli("evaluate", "model_dir=broken", "data=text", f"data.path={text_file}")
    assert outcome.status == 0, outcome.err
    figures = json.loads(outcome.out, parse_constant=lambda name: pytest.fail(name))
    assert figures["loss"] is figures["perplexity"] is figures["bits_per_byte"] is None
    assert figures["tokens"] == 2000


def test_the_first_token_that_differs_is_named() -> None:
    theirs, mine = SimpleTokenizer(list("abc")), SimpleTokenizer(list("axc"))
    check_same_tokens(theirs, SimpleTokenizer(list("abc")))
    with pytest.raises(UserError, match=r"is 'x' in the data and 'b' to the weights|is 'c' in the data and 'b'"):
        check_same_tokens(mine, theirs)
