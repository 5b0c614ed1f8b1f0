"""Sweeps that are killed at random instants, typed again, and end as if nothing had been."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="trials are forked")


def start(folder: Path, **settings: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(HERE / "fake_sweep.py"), str(folder), json.dumps(settings)]
    environment = {**os.environ, "PYTHONPATH": str(HERE), "FAKE_SECONDS": "0.015"}
    return subprocess.Popen(command, env=environment)


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep.csv").open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def kill_one_of(sweep: subprocess.Popen[bytes], draw: random.Random) -> str:
    """The sweeper, what trials are forked from, or a trial, whichever is there."""
    children = psutil.Process(sweep.pid).children(recursive=True)
    kind = draw.choice(["sweeper", "server", "trial"])
    victims = {"sweeper": [sweep.pid], "server": [c.pid for c in children[:1]], "trial": [c.pid for c in children[1:]]}
    for pid in victims[kind][:1]:
        os.kill(pid, signal.SIGKILL)
        return kind
    return ""


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("workers", [2])
def test_a_sweep_that_is_killed_ends_as_if_it_had_not_been(tmp_path: Path, kills: int, workers: int) -> None:
    """Twelve trials: each once in the table, with the same figures to the last bit; and no process is left."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(whole, workers=workers).wait() == 0
    draw = random.Random(7)
    done: list[str] = []
    while len(done) < kills:
        sweep = start(killed, workers=workers)
        time.sleep(1.0)
        while sweep.poll() is None and len(done) < kills:
            time.sleep(draw.uniform(0, 1.2))
            everyone = psutil.Process(sweep.pid).children(recursive=True) if sweep.poll() is None else []
            if sweep.poll() is None and (what := kill_one_of(sweep, draw)):
                done.append(what)
                if what == "sweeper":
                    sweep.wait()
                    _, left = psutil.wait_procs(everyone, timeout=5)
                    assert left == []
        if sweep.poll() == 0 and len(done) < kills:
            pytest.fail(f"over after {len(done)} kills: make it longer")
    if sweep.poll() is None:
        assert sweep.wait() == 0
    assert start(killed, workers=workers).wait() == 0
    assert table(killed) == table(whole)
    assert len(table(killed)) == 12
    assert {row["state"] for row in table(killed)} == {"done"}
