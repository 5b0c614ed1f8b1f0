"""Every benchmark still runs, on as little as it takes, and ends with a line of JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.nightly
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SMALL = {
    "checkpoint": ["--steps", "8", "--ways", "async", "model=base", "data.seq_len=64", "trainer.precision=32"],
    "generate": ["--model", "gpt2_base", "--vocab-size", "512", "--repeats", "1", "--many", "4", "--only", "many"],
    "load": ["--model", "base", "--vocab-size", "512", "--repeats", "1"],
    "plan_against_truth": ["--cases", "base"],
    "prepare": ["--mb", "2", "--tokenizer", "byte"],
    "quality_at_equal_time": ["--seeds", "1", "--steps", "2", "2"],
    "sweep": ["--rates", "1"],
    "train_overhead": ["--steps", "4"],
}
OVERRIDES = {"quality_at_equal_time", "sweep", "train_overhead"}  # take settings of slm-train
ELSEWHERE = {"beside_others", "scaling", "time_to_loss", "train"}  # need another clone, a corpus, minutes or 10 GB


def test_all_are_known() -> None:
    assert {file.stem for file in BENCHMARKS.glob("*.py")} == SMALL.keys() | ELSEWHERE


@pytest.mark.parametrize("name", SMALL)
def test_it_runs(name: str, tiny: tuple[str, ...], tmp_path: Path) -> None:
    settings = [one for one in tiny if not one.startswith("trainer.max_steps=")] if name in OVERRIDES else []
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *SMALL[name], *settings]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])
