"""What a run folder tells: its state above all."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from made_runs import STEP_MS, TOKENS_A_STEP, make_run

from slm.errors import UserError
from slm.study.recorded_settings import read_settings
from slm.study.run_record import differing, read_run, runs_below
from slm.training.run.lock import is_held, only_writer

HOLD = """
import sys, time
from pathlib import Path
from slm.training.run.lock import only_writer
with only_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_run_that_was_killed_is_told_from_one_that_runs(tmp_path: Path) -> None:
    """Both have their lock; the system lets go of that of a dead process. Who looks does not hold it meanwhile: two
    that looked at the same time took each other for a run."""
    run = make_run(tmp_path / "run", end=None)
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(run)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        assert [read_run(run).state for _ in range(2)] == ["running", "running"]
        assert read_run(run).ended is None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert read_run(run).state == "killed"
    assert abs(read_run(run).ended.timestamp() - time.time()) < 60  # type: ignore[union-attr]
    with only_writer(run):  # gone on with
        assert is_held(run)
        assert is_held(run)


@pytest.mark.parametrize(
    ("end", "losses", "state"),
    [
        ("done", {50: 2.0, 100: 1.5}, "done"),
        ("done", {50: 2.0}, "stopped"),  # stop_after, trainer.max_time
        ("stopped", {50: 2.0}, "stopped"),
        ("failed", {50: 2.0}, "failed"),
        ("killed", {50: 2.0}, "killed"),
    ],
)
def test_states(tmp_path: Path, end: str, losses: dict[int, float], state: str) -> None:
    run = read_run(make_run(tmp_path / "run", losses=losses, end=end, error="UserError: why"))
    assert (run.state, run.error) == (state, "UserError: why" if state == "failed" else None)
    assert (run.step, run.max_steps) == (max(losses), 100)
    assert run.best_val_loss == min(losses.values())
    assert run.tokens_per_s == 25600


def test_figures_of_an_earlier_session_are_not_taken(tmp_path: Path) -> None:
    """``summary.json`` of a part that came to its end stays where the next one is killed."""
    run = make_run(tmp_path / "run", losses={50: 2.0})
    with (run / "metrics.csv").open("a") as table:
        table.write("80,2.2,40960,20.0,20000.0,1.8\n90,2.1,46")  # cut by the kill
    (run / ".lock").touch()
    found = read_run(run)
    assert (found.state, found.step, found.best_val_loss, found.tokens_per_s) == ("killed", 80, 1.8, 20000)


def test_damaged_files_are_told_and_cost_no_other_run(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        make_run(tmp_path / name)
    (tmp_path / "a/run.json").write_text("{")
    (tmp_path / "b/config.yaml").write_text("a: [")
    (tmp_path / "b/summary.json").write_text("[]")
    (tmp_path / "c/run.json").write_text('{"overrides": 3}')
    for file in (tmp_path / "d").glob("*.[cj]s*"):
        file.write_bytes(file.read_bytes()[:40] + bytes(100) + b"\xff\n")
    found = {run.folder.name: run for run in runs_below(tmp_path)}
    assert (found["a"].state, "run.json is damaged" in str(found["a"].error)) == ("failed", True)
    assert (found["b"].best_val_loss, found["b"].state) == (2.0, "done")
    assert "run.json is damaged (overrides" in str(found["c"].error)
    assert (found["d"].state, found["d"].step, found["d"].metrics.steps) == ("failed", 0, [])
    with pytest.raises(UserError, match="is no folder"):
        runs_below(tmp_path / "nowhere")


def test_a_job_of_a_sweep_that_was_refused(tmp_path: Path) -> None:
    folder = tmp_path / "3"
    folder.mkdir()
    failed = {"overrides": ["model.dim=65", "seed=2"], "swept": ["model.dim=65"], "error": "65 is odd", "mistake": True}
    (folder / "failed.json").write_text(json.dumps(failed))
    make_run(tmp_path / "1")
    refused, ran = sorted(runs_below(tmp_path), key=lambda run: run.state, reverse=True)
    assert (refused.state, refused.error, refused.step) == ("failed", "65 is odd", 0)
    assert refused.settings == {"model.dim": 65, "seed": 2}
    assert differing([refused, ran]) == ["model.dim", "seed"]


def test_settings_are_read_as_yaml_reads_them_whole(tmp_path: Path) -> None:
    """Section by section: with lists and texts that stand at the margin, comments, what is empty, stars."""
    nested = {"b": [1, {"c": 2}], "d": {}, "e": {"f": "x\n\n  y: z\n", "g": "a: 1 " * 40}, "h": None}
    text = yaml.safe_dump({"a": nested, "plugins": ["x", "*"], "t": "x\n\n  y: z\n# no"})
    (tmp_path / "config.yaml").write_text(f"# head\n{text}\nlast: 'quo\n\n  ted: 1'\n")
    assert read_settings(tmp_path / "config.yaml") == {
        "a.b": [1, {"c": 2}],
        "a.d": {},
        "a.e.f": "x\n\n  y: z\n",
        "a.e.g": "a: 1 " * 40,
        "a.h": None,
        "plugins": ["x", "*"],
        "t": "x\n\n  y: z\n# no",
        "last": "quo\nted: 1",
    }
    (tmp_path / "config.yaml").write_text("a: &x [1, 2]\nb: *x\n")
    assert read_settings(tmp_path / "config.yaml") == {}


def test_curves_stand_over_steps_tokens_and_time(tmp_path: Path) -> None:
    """A validation between two logged steps has the tokens and the time of a steady speed."""
    run = make_run(tmp_path / "run", losses={50: 2.5, 100: 2.0})
    with (run / "metrics.csv").open("a") as table:
        table.write("75,,,,,2.2\n")
    curves = read_run(run).metrics
    assert curves.points("val/loss") == [(50, 2.5), (75, 2.2), (100, 2.0)]
    assert curves.points("val/loss", "tokens") == [(s * TOKENS_A_STEP, y) for s, y in curves.points("val/loss")]
    assert [x for x, _ in curves.points("val/loss", "time")] == pytest.approx(
        [s * STEP_MS / 1000 for s in (50, 75, 100)]
    )
    assert curves.points("val/loss", "flops", 2.0)[0] == (2 * 50 * TOKENS_A_STEP, 2.5)
    assert curves.points("val/loss", "flops") == []
    assert read_run(tmp_path).metrics.points("val/loss") == []
    assert math.isnan(read_run(tmp_path).best_val_loss)


def test_a_run_notes_how_it_ended(train_tiny: Any, run_cli: Any, tmp_path: Path) -> None:
    """And its size; a part that was stopped is to be gone on with. (By a signal: `test_stop_signals`; one that fails:
    `test_bad_steps`.)"""
    run = read_run(train_tiny("run", "stop_after=3"))
    assert (run.state, run.step, run.max_steps) == ("stopped", 3, 6)
    assert run.parameters is not None
    assert run.parameters > 10_000
    assert run.flops_per_token > 6e4
    assert run_cli("train", "resume=run").status == 0
    run = read_run(tmp_path / "run")
    assert (run.state, run.step, run.seed) == ("done", 6, 1)
    assert run.ended is not None
    assert run.started is not None
    assert run.ended >= run.started
