"""What the README tells people to type works, in the order it stands there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

# What makes a command of the README a matter of a second; it comes after the command's own settings.
SMALL_MODEL = (
    "model.params.max_seq_len=16",
    *(f"model.modules.transformer.{s}" for s in ("dim=16", "n_heads=2", "n_layers=1")),
)
SHORT_RUN = (
    *("trainer.max_steps=4", "trainer.batch_size=2", "trainer.val_every=2", "trainer.save_every=2"),
    "trainer.limit_val_batches=1",
)
SHORT = {
    "train": (*SMALL_MODEL, *SHORT_RUN, "trainer.accelerator=cpu", "trainer.devices=1"),
    "generate": ("generation.max_new_tokens=4",),
    "evaluate": ("data=text", "data.path=README.md", "data.seq_len=16"),
    "prepare": (),
    "convert": (),
    "reproduce": (),
    "plan": ("model.modules.transformer.n_layers=1", "timing_s=0.0"),
    "compare": (),
    "report": (),
    "runs": (),
}


def shell_lines(text: str) -> list[list[str]]:
    """The commands in its ``sh`` blocks, comments left out."""
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    return [words for block in blocks for line in block.splitlines() if (words := shlex.split(line, comments=True))]


# The same for a command that has one of these among its words: conversations need longer windows than texts, and an
# evaluation of theirs no other data.
SHORT_WITH = {
    "experiment=sft_toy": (
        *SHORT["train"],
        "model.params.max_seq_len=48",
        "task.answers=4",
        "task.max_answer_tokens=2",
    ),
    "experiment=dpo_toy_base": (*SHORT["train"], "model.params.max_seq_len=192"),
    "adapter=lora": (*SHORT["train"], "task.answers=4", "task.max_answer_tokens=2"),
    "run=outputs/toy": ("task.max_answer_tokens=2",),
    "run=outputs/toy_dpo": (),
    "tasks=[induction]": (),
}


# Steps and widths that the README names, and those of a short run.
STEPS = {
    "stop_after=100": "stop_after=2",
    "from_step=outputs/first@250": "from_step=outputs/first@2",
    "trainer.max_steps=1000": "trainer.max_steps=8",
    "model.modules.transformer.dim=128,192": "model.modules.transformer.dim=16,32",
}


def shortened(words: list[str]) -> list[str]:
    """The arguments of an slm command, cut down; a step becomes one that a short run has."""
    words = [STEPS.get(word, word) for word in words]
    if "trainer.max_steps=8" in words:  # all else is the run's own
        return words[1:]
    command = words[0].removeprefix("slm-")
    short = SHORT[command]
    if command == "evaluate" or "task=sft" in words or words[1].startswith("experiment="):
        short = next((SHORT_WITH[word] for word in words if word in SHORT_WITH), short)
    if any(word.startswith("model.weights=") for word in words):  # they say how small the model is
        short = tuple(setting for setting in short if setting not in SMALL_MODEL)
    named = {word.partition("=")[0] for word in words}
    return [*words[1:], *(setting for setting in short if setting.partition("=")[0] not in named)]


@pytest.mark.nightly
def test_every_command_runs_in_order(run_cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each ends with status 0; what a later one needs, an earlier one made."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    (tmp_path / "README.md").write_text(README, encoding="utf-8")
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    (tmp_path / "prompts.txt").write_text("def main(\nimport \n", encoding="utf-8")
    (tmp_path / "tinyshakespeare.txt").write_text("First Citizen:\nSpeak, speak.\n" * 200, encoding="utf-8")
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    commands = [words for words in shell_lines(README) if words[0] not in ("make", "sbatch")]
    assert len(commands) >= 10
    for words in commands:
        if any("wandb" in word for word in words) and find_spec("wandb") is None:
            continue  # make nightly has it
        if words[0] == "python":
            subprocess.run([sys.executable, *words[1:]], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
            continue
        outcome = run_cli(words[0].removeprefix("slm-"), *shortened(words))
        assert outcome.status == 0, f"{shlex.join(words)}\n{outcome.err}"
    assert len((tmp_path / "studies/rates/sweep.csv").read_text().splitlines()) == 1 + 12


def test_the_python_block_runs(run_cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """On a run folder of the name the README uses."""
    (tmp_path / "README.md").write_text(README, encoding="utf-8")
    train = ("run_dir=outputs/first", "data=text", "data.path=README.md", "tokenizer=byte", "callbacks=none")
    assert run_cli("train", *train, *SHORT["train"], "model.params.max_seq_len=200").status == 0
    block = re.search(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert block
    monkeypatch.chdir(tmp_path)
    exec(block.group(1), {})
    assert len(capsys.readouterr().out) > 20


def test_every_make_target_it_names_exists() -> None:
    """`make demo` and `make test` open the README; CI runs them."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = {words[1] for words in shell_lines(README) if words[0] == "make"}
    assert named == {"demo", "test"}
    assert named <= targets


def test_its_tables_name_every_choice_and_room() -> None:
    """A choice in conf/ that the README does not name is as good as not there."""
    for group in (
        "model",
        "adapter",
        "task",
        "tokenizer",
        "data",
        "optimizer",
        "scheduler",
        "trainer",
        "logger",
        "sweep",
        "recipe",
        "size",
    ):
        row = next(line for line in README.splitlines() if line.startswith("|") and f"`{group}`" in line.split("|")[1])
        for choice in (ROOT / "conf" / group).glob("*.yaml"):
            assert f"`{choice.stem}`" in row, f"{group}={choice.stem}"
    rooms = {p.name for p in (ROOT / "src" / "slm").iterdir() if p.is_dir() and not p.name.startswith("_")}
    assert all(f"{room}/" in README for room in rooms)


def test_the_tree_names_every_room() -> None:
    """A newcomer finds the room there, with a line on what it is for."""
    tree = README.partition("src/slm/\n")[2].partition("scripts/")[0]
    named = re.findall(r"^ +(\w+)/ {2,}\S", tree, flags=re.MULTILINE)
    rooms = {file.parent for file in (ROOT / "src/slm").rglob("*.py") if file.name != "__init__.py"}
    rooms -= {ROOT / "src/slm", ROOT / "src/slm/training/tasks/preferences"}
    assert sorted(named) == sorted(room.name for room in rooms)
