"""Every form of record trains a tiny model a step, or is refused in a line that says what would do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

DATA = Path(os.environ.get("SLM_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
CASES = DATA.parent / "cases"
TOOLS = (
    "{{ tools | tojson if tools else '' }}{% for m in messages %}<{{ m.role[0] }}>"
    "{{ m.content or m.tool_calls | tojson }}{{ '\n' }}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)

pytestmark = [pytest.mark.nightly, pytest.mark.skipif(not CASES.is_dir(), reason="no shared cases here")]


@pytest.fixture
def step(run_cli: Any, tiny: tuple[str, ...]) -> Any:
    kept = [s for s in tiny if not s.startswith(("data", "callbacks", "tokenizer", "model.", "trainer.max_steps"))]
    return lambda *more: run_cli("train", *kept, "trainer.max_steps=1", "trainer.val_every=1", "run_dir=run", *more)


SHAPE = ("dim=32", "n_layers=1", "n_heads=2")
MODEL = (
    *(f"model.modules.transformer.{size}" for size in SHAPE),
    *("model.params.max_seq_len=1024", "tokenizer=byte", "task.answers=2", "task.max_answer_tokens=2"),
)
INSTRUCTIONS = sorted(file.name for file in (CASES / "instructions").glob("*"))


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_conversations(step: Any, name: str, tmp_path: Path) -> None:
    command = ("task=sft", f"data.path={CASES / 'instructions' / name}", *MODEL)
    outcome = step(*command)
    if name in ("openai_tools.jsonl", "openai_null_content.jsonl"):
        assert (outcome.status, "the chat template has no place for tool" in outcome.err) == (2, True), outcome.err
        (tmp_path / "tools.jinja").write_text(TOOLS)
        outcome = step(*command, f"task.template_file={tmp_path / 'tools.jinja'}")
    assert outcome.status == 0, outcome.err
    assert "answers to its end" in outcome.err or "to their end" in outcome.err
    assert ("'reasoning_content' of 60 messages" in outcome.err) == (name == "reasoning.jsonl")


@pytest.mark.parametrize("name", sorted(file.name for file in (CASES / "preferences").glob("*")))
def test_preferences(step: Any, name: str, tiny_run: Path) -> None:
    command = (
        f"data.path={CASES / 'preferences' / name}",
        f"model.weights={tiny_run}",
        "model.params.max_seq_len=1024",
    )
    command = (*command, "model.extend_positions=linear", "task.template=alpaca")
    outcome = step("task=dpo", *command)
    if name == "kto.jsonl":
        assert (outcome.status, "an answer with a label is for task=kto" in outcome.err) == (2, True), outcome.err
    elif name == "trl_implicit_text.jsonl":
        assert (outcome.status, "no pair is left" in outcome.err) == (2, True), "there is one prompt for both parts"
    else:
        assert outcome.status == 0, outcome.err
        outcome = step("task=sft", *command[:1], *MODEL, "run_dir=sft")
        if name == "ultrafeedback_binarized.jsonl":  # its records hold a whole conversation, too
            assert (outcome.status, "60 as messages; fields not read: chosen" in outcome.err) == (0, True), outcome.err
        else:
            assert (outcome.status, "task=dpo" in outcome.err) == (2, True), outcome.err
    if name != "trl_implicit_text.jsonl":
        outcome = step("task=kto", *command, "run_dir=kto")
        assert outcome.status == 0, outcome.err


def test_columns_from_the_command_line(step: Any, tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_text("".join(f'{{"q": "q{i}", "a": "b"}}\n' for i in range(9)))
    command = ("task=sft", "data.path=own.jsonl", *MODEL)
    outcome = step(*command)
    assert (outcome.status, "data.columns={prompt: q, response: a}" in outcome.err) == (2, True), outcome.err
    outcome = step(*command, "data.columns={prompt: q, response: a}")
    assert outcome.status == 0, outcome.err
    outcome = step(*command, "data.columns={promt: q}")
    assert (outcome.status, "data.columns" in outcome.err) == (2, True), outcome.err
