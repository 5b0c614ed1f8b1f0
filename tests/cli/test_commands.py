"""The installed commands as processes: help at once, status and streams as a shell sees them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path

import pytest

from slm.cli.help import choices, meanings

COMMANDS = {
    "slm-train": ("model", "tokenizer", "data", "optimizer", "scheduler", "trainer", "logger", "sweep", "experiment"),
    "slm-generate": ("generation",),
    "slm-evaluate": ("data",),
    "slm-prepare": ("data", "tokenizer"),
    "slm-convert": (),
    "slm-push": (),
    "slm-crawl": (),
    "slm-reproduce": (),
    "slm-report": (),
    "slm-runs": (),
    "slm-compare": (),
    "slm-serve": ("generation",),
    "slm-plan": ("model", "tokenizer", "data", "optimizer", "scheduler", "trainer", "experiment"),
}


def command(name: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    script = Path(sys.executable).with_name(name)
    return subprocess.run([script, *arguments], capture_output=True, text=True, cwd=cwd, timeout=60)


@pytest.mark.serial
@pytest.mark.parametrize("name", COMMANDS)
def test_help_answers_at_once(name: str) -> None:
    """Under a second, so it may import neither torch nor Hydra; for a person: purpose, three examples, groups
    with their choices."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        answer = command(name, "--help")
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1, seconds
    assert (answer.returncode, answer.stderr) == (0, "")
    assert f"usage: {name} " in answer.stdout
    examples = answer.stdout.partition("examples:")[2].partition("\n\n")[0]
    assert examples.count("slm-") >= 3
    words = answer.stdout.replace("\n", " ")
    for group in COMMANDS[name]:
        assert all(choice in words for choice in choices(group)), group
    assert max(map(len, answer.stdout.splitlines())) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_every_setting_of_a_command_has_its_meaning(name: str) -> None:
    """It stands in the YAML, beside the key, and nowhere else."""
    file = files("slm.conf").joinpath(f"{name.removeprefix('slm-')}.yaml")
    told = meanings(file.read_text(encoding="utf-8"))
    assert len(told) >= 3
    assert [key for key, said in told.items() if not said and key not in COMMANDS[name]] == []


def test_comments_are_read_beside_keys_alone() -> None:
    text = """# Head.
a: 1   # one
b: "x # y"   # two # more
c:
  d: null # three
  e: ${a}
f: [1, 2]
"""
    assert meanings(text) == {
        "a": "one (default 1)",
        "b": 'two # more (default "x # y")',
        "c": "",
        "c.d": "three",
        "c.e": "",
        "f": " (default [1, 2])",
    }


def test_a_mistake_in_the_shell(tmp_path: Path) -> None:
    answer = command("slm-train", "trainer.max_step=3", cwd=tmp_path)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.startswith("slm-train: unknown key 'trainer.max_step'; did you mean 'trainer.max_steps'?")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("slm-generate", ["run=RUN", "prompt=a"]),
        ("slm-train", ["--explain"]),
        *((name, ["--help"]) for name in COMMANDS),
    ],
)
def test_a_reader_that_has_had_enough(tiny_run: Path, name: str, arguments: list[str]) -> None:
    """``slm-generate … | head``: no traceback about a broken pipe; ``--help | head`` had one."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [Path(sys.executable).with_name(name), *(word.replace("RUN", str(tiny_run)) for word in arguments)]
    answer = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    assert (answer.returncode, answer.stderr) == (0, "")
