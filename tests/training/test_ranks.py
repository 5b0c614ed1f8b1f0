"""Two ranks learn what one learns."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def test_two_ranks_are_one(
    train_tiny: Any, tiny: tuple[str, ...], cache_dir: Path, tmp_path: Path, metrics_of: Any
) -> None:
    """Same windows a step, same losses; validation is exact over both, each file written once.

    As a user starts it: Lightning starts the second rank with the same command line, which must mean
    the same there. It once had the path quoted twice, found no such file, and Lightning killed the run.
    A run of one rank goes on with two.
    """
    data = tmp_path / "two words, {odd}.txt"
    data.write_text(Path(tiny[1].partition("=")[2]).read_text())
    changes = ("trainer.global_batch_size=8", "trainer.max_steps=8", f"data.path={data}")
    one = train_tiny("one", *changes)
    train_tiny("two", *changes, "stop_after=4")
    outcome = subprocess.run(
        [Path(sys.executable).with_name("slm-train"), "resume=two", "trainer.devices=2"],
        cwd=tmp_path,
        env={**os.environ, "SLM_CACHE_DIR": str(cache_dir)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout == "two\n"
    assert outcome.stderr.count("run folder two, resumed at step 4") == 1
    two, expected = metrics_of(tmp_path / "two"), metrics_of(one)
    assert [row["step"] for row in two] == [row["step"] for row in expected]
    for row, other in zip(two, expected, strict=True):
        assert row["train/tokens"] == other["train/tokens"]
        for name in ("train/loss", "val/loss"):
            if other[name]:
                assert float(row[name]) == pytest.approx(float(other[name]), abs=1e-5), (row["step"], name)
