"""The installed commands as processes: help at once, status and streams as a shell sees them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from slm.cli.help import choices

COMMANDS = {
    "slm-train": ("model", "tokenizer", "data", "optimizer", "scheduler", "trainer", "logger", "experiment"),
    "slm-generate": ("generation",),
    "slm-evaluate": ("data",),
    "slm-prepare": ("data", "tokenizer"),
    "slm-convert": (),
    "slm-crawl": (),
    "slm-reproduce": (),
}


def command(name: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    script = Path(sys.executable).with_name(name)
    return subprocess.run([script, *arguments], capture_output=True, text=True, cwd=cwd, timeout=60)


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
    assert max(map(len, answer.stdout.splitlines())) <= 100


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
