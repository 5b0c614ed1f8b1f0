"""What instruction tuning leaves behind: a model that answers wherever it is asked, here and in transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import slm
from slm.chat.renderer import ChatRenderer
from slm.models.config import ModelConfig
from slm.models.contract import build_model
from slm.tokenizers.byte import ByteTokenizer
from slm.tokenizers.extended import ExtendedTokenizer
from slm.weights.bundle import write_bundle

CASES = Path(__file__).parents[3] / "shared" / "cases"
TALK = [
    {"role": "user", "content": "say 3"},
    {"role": "assistant", "content": "xx"},
    {"role": "user", "content": "say\n4 <|im_end|"},
]


@pytest.fixture(scope="module")
def sft(tmp_path_factory: pytest.TempPathFactory, tiny: tuple[str, ...]) -> list[str]:
    """Settings of a run on made conversations, without those of a model."""
    file = tmp_path_factory.mktemp("talks") / "talks.jsonl"
    talks = [{"prompt": f"say {i % 7}", "response": "x" * (i % 5 + 1)} for i in range(40)]
    file.write_text("".join(json.dumps(talk) + "\n" for talk in talks), encoding="utf-8")
    kept = [s for s in tiny if not s.startswith(("data", "callbacks", "model.", "tokenizer"))]
    return [*kept, "task=sft", f"data.path={file}", "task.answers=2", "task.max_answer_tokens=4"]


@pytest.fixture(scope="module")
def chatting(tmp_path_factory: pytest.TempPathFactory, invoke: Any, tiny: tuple[str, ...], sft: list[str]) -> Path:
    """A run folder, to be read only."""
    folder = tmp_path_factory.mktemp("sft")
    model = [s for s in tiny if s.startswith(("model.", "tokenizer")) and "max_seq_len" not in s]
    outcome = invoke(folder, "train", *sft, *model, "model.params.max_seq_len=96", "run_dir=run")
    assert outcome.status == 0, outcome.err
    return folder / "run"


def test_transformers_loads_it_and_writes_a_conversation_alike(run_cli: Any, chatting: Path, tmp_path: Path) -> None:
    """Same logits, and the template in ``tokenizer_config.json`` gives the ids that ours gives."""
    transformers = pytest.importorskip("transformers")
    outcome = run_cli("convert", f"source={chatting}", "to=hf", "out=theirs")
    assert outcome.status == 0, outcome.err
    assert "im_start" in json.loads((tmp_path / "theirs/tokenizer_config.json").read_text())["chat_template"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs")
    ours = slm.load(chatting)
    prompt_ids = ChatRenderer(ours.tokenizer).prompt_ids(TALK)
    assert tokenizer.apply_chat_template(TALK, add_generation_prompt=True, return_dict=False) == prompt_ids
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "theirs").eval()
    with torch.no_grad():
        ids = torch.tensor([prompt_ids])
        torch.testing.assert_close(model(ids).logits, ours.model(ids), rtol=0, atol=1e-5)


def test_conversations_over_files_and_what_the_model_is_told(run_cli: Any, chatting: Path, tmp_path: Path) -> None:
    """Answers keep the messages that they answer, so that an interrupted file is gone on with; `system` is told ahead,
    where a line has none of its own."""
    ours = slm.load(chatting)
    asked: list[dict[str, Any]] = [
        {"messages": TALK},
        {"prompt": "say 1", "system": "Be kind."},
        {"messages": [{"role": "system", "content": "é"}, TALK[0]], "max_new_tokens": 3},
        {"messages": [TALK[0], TALK[1]]},
        {"prompt": "say 1"},
    ]
    lines = [json.dumps({**one, "id": i}) + "\n" for i, one in enumerate(asked)]
    (tmp_path / "talks.jsonl").write_text("".join(lines), encoding="utf-8")
    command = (
        "generate",
        f"run={chatting}",
        "generation=greedy",
        "generation.max_new_tokens=8",
        "system=Be, ${brief}.",
    )
    outcome = run_cli(*command, "prompts=talks.jsonl", "out=answers.jsonl")
    assert outcome.status == 0, outcome.err
    assert "1 of 5 prompts were refused (line 4)" in outcome.err
    answers = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [{k: a[k] for k in ("messages", "prompt") if k in a} for a in answers] == [
        {k: one[k] for k in ("messages", "prompt") if k in one} for one in asked
    ]
    assert "the assistant's words" in answers[3]["error"]
    for answer, one in zip(answers, asked, strict=True):
        messages = one.get("messages") or [{"role": "user", "content": one["prompt"]}]
        if messages[-1]["role"] == "user":
            told = one.get("system", "Be, ${brief}.")
            expected = ours.chat(messages, greedy=True, max_new_tokens=one.get("max_new_tokens", 8), system=told)
            assert (answer["completion"], answer["prompt_tokens"]) == (expected.text, expected.prompt_tokens)
    whole = (tmp_path / "answers.jsonl").read_bytes()
    (tmp_path / "answers.jsonl").write_bytes(whole[: whole.index(b"\n") + 20])
    assert "1 of 5 prompts are answered" in run_cli(*command, "prompts=talks.jsonl", "out=answers.jsonl").err
    again = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [a.get("completion") for a in again] == [a.get("completion") for a in answers]
    assert run_cli(*command, "prompt=say 1").out == answers[4]["completion"]
    both = run_cli(*command, "prompt=say 1", "generation.system=b")
    assert (both.status, "they are one" in both.err) == (2, True)
    (tmp_path / "bad.jsonl").write_text('{"messages": [{"role": "user", "content": "\\ud800"}]}\n')
    assert "line 1 of 'bad.jsonl' has no prompt" in run_cli(*command, "prompts=bad.jsonl").err
    (tmp_path / "two.jsonl").write_text('{"messages": [{}], "prompt": "a"}\n')
    assert "has a prompt and messages" in run_cli(*command, "prompts=two.jsonl").err


@pytest.mark.parametrize("how", ["prompt", "prompts", "stdin"])
def test_a_prompt_is_a_message_unless_chat_is_off(
    run_cli: Any, chatting: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """``auto`` and ``true`` answer, ``false`` goes on with the text: on the command line, in a file, piped."""
    import io
    import sys

    lines = ["say 5", "say 1"][: 1 if how == "prompt" else 2]
    ours = slm.load(chatting)
    message_ids = [ChatRenderer(ours.tokenizer).prompt_ids([{"role": "user", "content": line}]) for line in lines]
    text_ids = [ours.tokenizer.encode(line) for line in lines]
    greedy = slm.generation.config.GenerationConfig(greedy=True, max_new_tokens=12)
    answers, texts = ([one.text for one in ours.complete_ids(ids, greedy)] for ids in (message_ids, text_ids))
    assert answers != texts
    (tmp_path / "lines.txt").write_text("\n".join(lines) + "\n")
    asked = {"prompt": [f"prompt={lines[0]}"], "prompts": ["prompts=lines.txt"], "stdin": []}[how]
    for chat, expected in (("auto", answers), ("true", answers), ("false", texts)):
        monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines) + "\n"))
        settings = [f"generation.chat={chat}", "generation=greedy", "generation.max_new_tokens=12"]
        outcome = run_cli("generate", f"run={chatting}", *asked, *settings)
        assert outcome.status == 0, outcome.err
        found = {
            "prompt": lambda out: [out],
            "prompts": lambda out: [json.loads(row)["completion"] for row in out.splitlines()],
            "stdin": lambda out: out.removesuffix("\n").split("\n"),
        }[how](outcome.out)
        assert found == expected, chat


def test_a_run_on_text_shows_how_its_model_goes_on(run_cli: Any, tmp_path: Path, tiny: tuple[str, ...]) -> None:
    """Of a chat model it showed answers to the prompt. Here its template refuses whatever it is asked."""
    config = ModelConfig.from_dict(
        {
            "name": "gpt",
            "params": {"max_seq_len": 32, "vocab_size": 258, "vocab_multiple": 1},
            "modules": {"transformer": {"dim": 32, "n_layers": 1, "n_heads": 2}},
        }
    )
    tokenizer = ExtendedTokenizer(ByteTokenizer(), [], "{{ raise_exception('nobody answers here') }}")
    write_bundle(tmp_path / "chat", config, build_model(config).state_dict(), tokenizer, {})
    own = [s for s in tiny if not s.startswith(("model.", "tokenizer", "callbacks"))]
    sample = ["callbacks.sample_text.prompt=ab", "callbacks.sample_text.max_new_tokens=4"]
    outcome = run_cli("train", *own, "model.weights=chat", "data.seq_len=16", *sample, "run_dir=text")
    assert outcome.status == 0, outcome.err
    assert (tmp_path / "text/samples.txt").read_text(encoding="utf-8").startswith("--- step 3\nab")


@pytest.mark.skipif(not CASES.is_dir(), reason="shared/cases is not there")
@pytest.mark.parametrize(("name", "samples"), [("qwen3", 40), ("llama32_instruct", 20)])
def test_a_published_chat_model_is_tuned_on_two_turns_and_leaves_with_all_its_ends(
    run_cli: Any, sft: list[str], tmp_path: Path, name: str, samples: int
) -> None:
    """By its own template, which for one of them rewrites what was said."""
    lines = (CASES / "instructions" / "reasoning.jsonl").read_text(encoding="utf-8").splitlines()[:40]
    talks = [
        json.loads(one)["messages"] + json.loads(other)["messages"]
        for one, other in zip(lines, lines[20:], strict=False)
    ]
    (tmp_path / "two.jsonl").write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks))
    source = CASES / "checkpoints" / name
    own = [*sft, "data.path=two.jsonl", "data.val_fraction=0.5", "data.seq_len=256", "trainer.max_steps=1"]
    outcome = run_cli("train", *own, f"model.weights={source}", "run_dir=run")
    assert outcome.status == 0, outcome.err
    data = json.loads((tmp_path / "run/run.json").read_text())["data"]
    assert sum(data[part]["samples"] for part in ("train", "val")) == samples
    assert ("in 40 samples" in outcome.err) == (name == "qwen3")
    assert run_cli("convert", "source=run", "to=hf", "out=back").status == 0
    for file in ("config.json", "generation_config.json"):
        ends = [json.loads((folder / file).read_text())["eos_token_id"] for folder in (source, tmp_path / "back")]
        assert ends[0] == ends[1]
    ours = slm.load(tmp_path / "run", device="cpu")
    assert ours.tokenizer.end_ids == set(json.loads((source / "generation_config.json").read_text())["eos_token_id"])


@pytest.mark.nightly
def test_lora_learns_to_answer_and_leaves_a_plain_model(
    run_cli: Any, sft: list[str], chatting: Path, tmp_path: Path, metrics_of: Any
) -> None:
    """Resumed it is the unbroken run, answers too; the bundle is merged, chats, and scores as training did."""
    command = [*sft, f"model.weights={chatting}", "adapter=lora", "adapter.rank=2"]
    outcome = run_cli("train", *command, "run_dir=whole")
    assert outcome.status == 0, outcome.err
    assert run_cli("train", *command, "run_dir=parts", "stop_after=3").status == 0
    assert run_cli("train", "resume=parts").status == 0
    assert metrics_of(tmp_path / "parts") == metrics_of(tmp_path / "whole")
    parts, whole, base = (
        load_file(folder / "model/model.safetensors") for folder in (tmp_path / "parts", tmp_path / "whole", chatting)
    )
    assert whole.keys() == parts.keys() == base.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    real = slm.load(chatting).tokenizer.vocab_size  # rows beyond are padding
    moved = {name for name in base if not torch.equal(base[name][:real], whole[name][:real])}
    assert moved
    assert all(name.startswith("transformer.blocks.") for name in moved)
    checkpoint = torch.load(tmp_path / "whole/checkpoints/last.ckpt", weights_only=True)
    assert all(".lora_" in name for name in checkpoint["state_dict"])
    figures = json.loads(run_cli("evaluate", "run=whole").out)
    summary = json.loads((tmp_path / "whole/summary.json").read_text())
    assert figures["loss"] == pytest.approx(summary["best_val_loss"], abs=1e-5)
    outcome = run_cli("generate", "run=whole", "prompt=say 2", "generation=greedy", "generation.max_new_tokens=4")
    assert (outcome.status, bool(outcome.out)) == (0, True)
