"""task=sft from the command line: it answers, resumes exactly, starts from weights, and exports its template."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from slm.chat.renderer import ChatRenderer
from slm.models.config import ModelConfig
from slm.models.contract import build_model
from slm.tokenizers.byte import ByteTokenizer
from slm.tokenizers.load import load_tokenizer
from slm.weights.bundle import write_bundle


@pytest.fixture
def sft(tmp_path: Path, tiny: tuple[str, ...]) -> list[str]:
    """The tiny run, on made conversations."""
    file = tmp_path / "talks.jsonl"
    talks = [{"prompt": f"say {i % 7}", "response": "x" * (i % 5 + 1)} for i in range(60)]
    file.write_text("".join(json.dumps(talk) + "\n" for talk in talks), encoding="utf-8")
    kept = [s for s in tiny if not s.startswith(("data", "callbacks", "model.params.max_seq_len"))]
    return [*kept, "task=sft", f"data.path={file}", "model.params.max_seq_len=96", "task.max_answer_tokens=4"]


@pytest.mark.parametrize("packing", ["true", pytest.param("false", marks=pytest.mark.nightly)])
def test_a_resumed_run_repeats_an_unbroken_one(
    run_cli: Any, sft: list[str], tmp_path: Path, metrics_of: Callable[..., Any], packing: str
) -> None:
    """To the last bit, answers too; and the bundle chats."""
    settings = [*sft, f"task.packing={packing}"]
    assert run_cli("train", *settings, "run_dir=whole").status == 0
    assert run_cli("train", *settings, "run_dir=parts", "stop_after=4").status == 0
    assert run_cli("train", "resume=parts").status == 0
    rows = [
        [
            {name: value for name, value in row.items() if name.startswith("train/")}
            for row in metrics_of(tmp_path / run)
        ]
        for run in ("whole", "parts")  # a run that stops early is validated there once more
    ]
    assert rows[0] == rows[1]
    whole, parts = ((tmp_path / run / "answers.jsonl").read_text() for run in ("whole", "parts"))
    assert whole == parts
    answer = json.loads(whole.splitlines()[0])
    assert set(answer) == {"prompt", "reference", "answer", "exact"}
    states = [
        torch.load(tmp_path / run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for run in ("whole", "parts")
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert ChatRenderer(load_tokenizer(tmp_path / "whole/model")).prompt_ids([{"role": "user", "content": "a"}])


def test_speed_counts_what_the_model_read(run_cli: Any, sft: list[str], tmp_path: Path) -> None:
    """It counted the responses alone, a few tokens a window of 96: here 4 windows a step, by the batch size."""
    assert run_cli("train", *sft, "trainer.max_steps=3", "run_dir=run").status == 0
    with (tmp_path / "run/metrics.csv").open(newline="", encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if row.get("speed/step_ms")]
    read = [float(row["speed/tokens_per_s"]) * float(row["speed/step_ms"]) / 1000 for row in rows]
    assert read == pytest.approx([4 * 96] * 3)
    assert float(rows[-1]["train/tokens"]) < 3 * 4 * 96 / 2, "what was learnt is another number"


WITH_TIME = "{% for m in messages %}{{ strftime_now('TIME') }}{{ m.content }};{% endfor %}"


class Tomorrow(datetime):
    """A clock that is a day ahead."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return datetime.now(tz) + timedelta(days=1)


def test_a_template_that_writes_the_date_keeps_that_of_the_runs_start(
    run_cli: Any, sft: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Llama 3.2's does, and a run could not be resumed on the next day. Scoring reads what it was trained on, too."""
    (tmp_path / "date.jinja").write_text(WITH_TIME.replace("TIME", "%d %b"))
    settings = [*sft, f"task.template_file={tmp_path / 'date.jinja'}", "task.answers=0"]
    outcome = run_cli("train", *settings, "run_dir=parts", "stop_after=4")
    assert outcome.status == 0, outcome.err
    assert "the chat template writes the date" in outcome.err
    monkeypatch.setattr("slm.chat.jinja_chat.datetime", Tomorrow)
    monkeypatch.setattr("slm.training.run_config.datetime", Tomorrow)
    outcome = run_cli("train", "resume=parts")
    assert outcome.status == 0, outcome.err
    summary = json.loads((tmp_path / "parts/summary.json").read_text())
    assert json.loads(run_cli("evaluate", "run=parts").out)["loss"] == pytest.approx(summary["best_val_loss"], abs=1e-5)


@pytest.mark.nightly
def test_a_run_whose_template_writes_the_time_is_branched_and_made_again(
    run_cli: Any, sft: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "time.jinja").write_text(WITH_TIME.replace("TIME", "%d %H:%M"))
    assert run_cli("train", *sft, f"task.template_file={tmp_path / 'time.jinja'}", "run_dir=run").status == 0
    monkeypatch.setattr("slm.chat.jinja_chat.datetime", Tomorrow)
    monkeypatch.setattr("slm.training.run_config.datetime", Tomorrow)
    outcome = run_cli("train", "resume=run/checkpoints/last.ckpt", "run_dir=branch", "trainer.max_steps=12")
    assert outcome.status == 0, outcome.err
    outcome = run_cli("reproduce", "run=run")
    assert outcome.status == 0, outcome.err


def test_a_template_that_drops_thoughts_and_what_it_is_given(run_cli: Any, sft: list[str], tmp_path: Path) -> None:
    """Each turn is a sample, which is told; thoughts that training switched off stay off, which is told too."""
    template = (
        "{% for m in messages %}{{ m.role }}:{% if loop.last and m.role == 'assistant' %}<{{ m.reasoning_content }}>"
        "{% endif %}{{ m.content }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}assistant:"
        "{% if enable_thinking is defined and not enable_thinking %}<>{% endif %}{% endif %}"
    )
    (tmp_path / "thinking.jinja").write_text(template)
    turns = [[{"role": "user", "content": f"a{i}"}, {"role": "assistant", "content": "b"}] for i in range(20)]
    (tmp_path / "two.jsonl").write_text("".join(json.dumps({"messages": turn * 2}) + "\n" for turn in turns))
    settings = [*sft, "data.path=two.jsonl", "data.val_fraction=0.5", "task.template_file=thinking.jinja"]
    outcome = run_cli("train", *settings, "task.template_args={enable_thinking: false}", "run_dir=run", "stop_after=4")
    assert outcome.status == 0, outcome.err
    assert "10 training and 10 validation conversations in 40 samples (the template rewrites" in outcome.err
    assert "the chat template is given enable_thinking=false, in generation too" in outcome.err
    assert run_cli("train", "resume=run").status == 0
    answer = json.loads((tmp_path / "run/answers.jsonl").read_text().splitlines()[0])
    assert answer["reference"] == "b"  # as the model is to write it: the prompt has the thoughts
    command = ("generate", "run=run", "prompt=a", "generation=greedy", "generation.max_new_tokens=2")
    assert "given enable_thinking=false, as in training; generation.template_args" in run_cli(*command).err
    changed = run_cli(*command, "generation.template_args={enable_thinking: true}")
    assert (changed.status, changed.err) == (0, "")
    wrong = run_cli(*command, "generation.template_args={enable_thinkin: true}")
    assert (wrong.status, "did you mean 'enable_thinking'" in wrong.err) == (2, True)
    assert run_cli("convert", "source=run", "to=hf", "out=hf").status == 0
    exported = json.loads((tmp_path / "hf/tokenizer_config.json").read_text())["chat_template"]
    assert exported.startswith("{%- if enable_thinking is not defined %}")
    assert exported.endswith(template)


def test_from_weights_a_new_template_needs_rows(run_cli: Any, sft: list[str], tiny_run: Path) -> None:
    """The message names the setting; alpaca needs none."""
    own = [s for s in sft if not s.startswith(("model.", "tokenizer"))]
    start = [*own, f"model.weights={tiny_run}", "model.extend_positions=linear", "model.params.max_seq_len=300"]
    outcome = run_cli("train", *start, "run_dir=a")
    assert outcome.status == 2
    assert "model.grow_vocab=mean" in outcome.err
    assert run_cli("train", *start, "model.grow_vocab=mean", "run_dir=b").status == 0
    outcome = run_cli("train", *start, "task.template=alpaca", "run_dir=c")
    assert outcome.status == 0, outcome.err


@pytest.mark.nightly
def test_new_tokens_in_spare_rows_are_new_tokens(run_cli: Any, sft: list[str], tmp_path: Path) -> None:
    """Pythia has 50,304 rows and 50,277 tokens: with `chatml` and LoRA its two new ones stood in rows that nothing
    trained, and nothing said so, though rows that `grow_vocab` makes were refused. All begin as the mean of the 258."""
    shape = {"dim": 32, "n_layers": 1, "n_heads": 2}
    params = {"max_seq_len": 96, "vocab_size": 300, "vocab_multiple": 1}
    config = ModelConfig.from_dict({"name": "gpt", "params": params, "modules": {"transformer": shape}})
    torch.manual_seed(0)
    weights = build_model(config).state_dict()
    write_bundle(tmp_path / "spare", config, weights, ByteTokenizer(), {})
    command = [s for s in sft if not s.startswith(("model.", "tokenizer"))]
    command += ["model.weights=spare", "data.seq_len=96"]
    lora = ["adapter=lora", "adapter.rank=2"]
    frozen = [f"model.modules.{module}.freeze=true" for module in ("token_embedding", "output_projection")]
    for more in ([], lora, [*lora, "model.grow_vocab=mean"], [*frozen, "model.grow_vocab=mean"]):
        outcome = run_cli("train", *command, *more, "run_dir=a")
        assert outcome.status == 2
        assert ("grow_vocab=mean gives them rows" in outcome.err) == ("model.grow_vocab=mean" not in more)
        assert ("never" in outcome.err) == ("model.grow_vocab=mean" in more)
    whole = [*lora, "model.grow_vocab=mean", "adapter.also_train=[token_embedding]"]
    for name, more in (("lora", [*whole, "optimizer.lr=1e-12"]), ("all", ["model.grow_vocab=mean"])):
        outcome = run_cli("train", *command, *more, f"run_dir={name}")
        assert outcome.status == 0, outcome.err
        assert "2 new tokens (<|im_start|>, <|im_end|>): their rows begin as the mean" in outcome.err
    models = {name: load_file(tmp_path / name / "model/model.safetensors") for name in ("lora", "all")}
    rows = {name: tensors["token_embedding.weight"] for name, tensors in models.items()}
    before = weights["token_embedding.weight"]
    torch.testing.assert_close(rows["lora"][258:260], before[:258].mean(0).expand(2, -1), rtol=0, atol=1e-6)
    torch.testing.assert_close(rows["lora"][260:300], before[260:], rtol=0, atol=1e-6)
    assert (rows["all"][258:260] - rows["lora"][258:260]).abs().amax(1).min() > 1e-4  # both were trained


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["task.template=alpacca"], "did you mean 'alpaca'"),
        (["task.loss_on=some"], "task.loss_on"),
        (["task=pretrain", "data=instructions"], "task=sft"),
        (["data=python_stdlib", "~data.path"], "data=instructions"),
        (["model.params.max_seq_len=8"], "no conversation of the train part fits"),
    ],
)
def test_a_mistake_is_a_line(run_cli: Any, sft: list[str], settings: list[str], said: str) -> None:
    if "task=pretrain" in settings:
        sft = [s for s in sft if not s.startswith("task.")]
    if "~data.path" in settings:
        sft = [s for s in sft if not s.startswith("data.path")]
        settings = settings[:1]
    outcome = run_cli("train", *sft, *settings)
    assert outcome.status == 2
    assert said in outcome.err
    assert "Traceback" not in outcome.err
