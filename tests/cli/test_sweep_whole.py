"""Whole sweeps of real runs: killed again and again, and with settings that are stopped early."""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = [pytest.mark.nightly, pytest.mark.skipif(sys.platform == "win32", reason="trials are forked")]
TIMINGS = ("seconds", "tokens_per_s")


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep.csv").open(newline="", encoding="utf-8") as lines:
        return [{name: value for name, value in row.items() if name not in TIMINGS} for row in csv.DictReader(lines)]


def victims(sweep: subprocess.Popen[bytes]) -> dict[str, list[int]]:
    """The sweeper, what its trials are forked from, and these."""
    children = psutil.Process(sweep.pid).children()
    trials = [child.pid for one in children for child in one.children()]
    return {"sweeper": [sweep.pid], "server": [one.pid for one in children], "trial": trials}


def test_twenty_kills(tiny: tuple[str, ...], tmp_path: Path, cache_dir: Path) -> None:
    """Of the sweeper, of what trials are forked from, of a trial, in the middle of whatever: each of twelve trials is
    once in the table, with what an untouched sweep has to the last bit."""
    kept = [setting for setting in tiny if not setting.startswith(("optimizer.lr=", "trainer.max_steps="))]
    command = [Path(sys.executable).with_name("slm-train"), *kept, "trainer.max_steps=150", "-m", "sweep.workers=2"]
    varied = ["optimizer.lr=1e-4,3e-4,1e-3,3e-3,1e-2,3e-2", "seed=1,2"]

    def start(folder: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "SLM_CACHE_DIR": str(cache_dir)}
        typed = [*command, *varied, f"run_dir={folder}"]
        return subprocess.Popen(
            typed, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    assert start("whole").wait() == 0
    draw, kills = random.Random(3), 0
    sweep = start("killed")
    while kills < 20:
        time.sleep(draw.uniform(0, 4))
        if sweep.poll() is not None:
            sweep = start("killed")
            continue
        found = victims(sweep)
        kind = draw.choice(["sweeper", "server", "trial", "trial"])
        for pid in found[kind][:1]:
            os.kill(pid, signal.SIGKILL)
            kills += 1
        if kind == "sweeper":
            sweep.wait()
            left = [psutil.Process(pid) for pid in found["server"] + found["trial"] if psutil.pid_exists(pid)]
            assert psutil.wait_procs(left, timeout=10)[1] == []
    sweep.wait()
    assert start("killed").wait() == 0
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")
    assert len(rows(tmp_path / "killed")) == 12


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_best_of_a_grid_is_found_with_less_than_half_of_its_steps(run_cli: Any, tmp_path: Path, seed: int) -> None:
    """Four widths and six rates, all of them to the end first, so that the best is known."""
    (tmp_path / "text.md").write_text((Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8"))
    settings = (
        "data=text", "data.path=text.md", "tokenizer=byte", "model.params.max_seq_len=32", "callbacks=none",
        "model.modules.transformer.n_layers=1", "model.modules.transformer.n_heads=2",
        "model.modules.output_projection.tie_weights=false", "scheduler.warmup_steps=10", "trainer.precision=32",
        "trainer.accelerator=cpu", "trainer.devices=1", "trainer.max_steps=180", "trainer.log_every=20",
        "trainer.val_every=10", "trainer.batch_size=32", "trainer.save_every=1000", f"seed={seed}", "-m",
        "model.modules.transformer.dim=16,32,64,128", "optimizer.lr=5e-4,1e-3,2e-3,4e-3,8e-3,16e-3",
        "sweep.workers=2", "sweep.threads=1",
    )  # fmt: skip
    for folder, pruner in (("whole", "none"), ("pruned", "asha")):
        outcome = run_cli("train", *settings, f"run_dir={folder}", f"sweep.pruner={pruner}")
        assert outcome.status == 0, outcome.err
    whole, pruned = rows(tmp_path / "whole"), rows(tmp_path / "pruned")
    assert {row["state"] for row in whole} == {"done"}
    best = min(whole, key=lambda row: float(row["best_val_loss"]))
    found = min(pruned, key=lambda row: float(row["best_val_loss"]))
    assert found == best
    assert sum(int(row["step"]) for row in pruned) <= 0.45 * sum(int(row["step"]) for row in whole)
