"""slm-runs: every run below a folder."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from documented_json import differences
from made_runs import make_run

from slm.study.names import short_names, telling
from slm.study.run_record import runs_below
from slm.study.run_table import ago


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    """Rates by seeds; the first is killed, the last one refused."""
    for place, (lr, seed) in enumerate([(0.001, 1), (0.001, 2), (0.003, 1), (0.003, 2)]):
        losses = {50: 2.5 - place / 10, 100: 2.0 - place / 10}
        make_run(tmp_path / f"outputs/{place}", [f"optimizer.lr={lr}", f"seed={seed}"], losses)
    (tmp_path / "outputs/0/.lock").touch()
    (tmp_path / "outputs/9").mkdir()
    failed = {"overrides": ["optimizer.lr=-1"], "error": "optimizer.lr should be positive", "mistake": True}
    (tmp_path / "outputs/9/failed.json").write_text(json.dumps(failed))
    return tmp_path / "outputs"


def test_as_a_table(grid: Path, run_cli: Any) -> None:
    outcome = run_cli("runs")
    assert (outcome.status, outcome.err) == (0, "")
    head, refused, *lines = outcome.out.splitlines()
    assert head.split() == ["run", "state", "step", "val", "loss", "tokens/s", "ended", "commit", "settings"]
    assert refused.split()[:2] == ["outputs/9", "failed"]
    assert refused.endswith("lr=-1 (optimizer.lr should be positive)")
    assert [line.split()[:4] for line in lines] == [
        ["outputs/0", "killed", "100/100", "2.0000"],
        ["outputs/1", "done", "100/100", "1.9000"],
        ["outputs/2", "done", "100/100", "1.8000"],
        ["outputs/3", "done", "100/100", "1.7000"],
    ]
    assert lines[3].endswith("01234567  lr=0.003 seed=2")


def test_chosen_and_ordered(grid: Path, run_cli: Any, tmp_path: Path) -> None:
    def found(*arguments: str) -> list[str]:
        outcome = run_cli("runs", *arguments, "json=true")
        assert outcome.status == 0, outcome.err
        return [Path(run["run"]).name for run in json.loads(outcome.out)["runs"]]

    assert found("outputs", "where=optimizer.lr>1e-3") == ["2", "3"]
    assert found("folder=outputs", "where=state=done and seed=2", "sort=val_loss") == ["3", "1"]
    assert found(str(grid), "sort=-val_loss") == ["0", "1", "2", "3", "9"]
    assert found("outputs/1", "outputs/3", "where=val_loss<1.75") == ["3"]
    assert found("outputs", "where=error!=null") == ["9"]
    assert found("outputs", "where=commit=none") == ["9"]
    assert found("outputs", "sort=optimizer.lr") == ["9", "0", "1", "2", "3"]
    assert found("outputs", "where=step>1000") == []
    outcome = run_cli("runs", "where=step>1000")
    assert (outcome.status, outcome.out) == (0, "")
    assert "no run below outputs meets where=step>1000 (of 5)" in outcome.err


def test_as_json(grid: Path, run_cli: Any) -> None:
    out = run_cli("runs", "outputs", "json=true").out
    assert differences("slm-runs", out) == []
    runs = json.loads(out)["runs"]
    assert runs[2] == {
        "run": "outputs/1",
        "state": "done",
        "step": 100,
        "max_steps": 100,
        "val_loss": 1.9,
        "last_val_loss": 1.9,
        "tokens_per_s": 25600.0,
        "parameters": 1000,
        "commit": "0123456789abcdef",
        "started": "2026-01-31T12:00:00+00:00",
        "ended": "2026-01-31T12:10:00+00:00",
        "error": None,
        "overrides": ["optimizer.lr=0.001", "seed=2"],
        "settings": {"optimizer.lr": 0.001, "seed": 2},
    }
    assert runs[0]["val_loss"] is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "'nowhere' is no folder; name one that holds runs"),
        (["where=lr>1"], "where: no run has 'lr'; did you mean 'optimizer.lr'?"),
        (["sort=val_los"], "sort: no run has 'val_los'; did you mean 'val_loss'?"),
        (["where=step>"], "where: cannot read 'step>' at its end"),
        (["outputs", "folder=outputs"], "folder is given twice"),
        (["outputs", "sorted=step"], "unknown key 'sorted'; did you mean 'sort'?"),
    ],
)
def test_mistakes(grid: Path, run_cli: Any, arguments: list[str], said: str) -> None:
    outcome = run_cli("runs", *arguments)
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err.startswith(f"slm-runs: {said}")


def test_what_was_typed_names_runs_where_it_tells_them_apart(tmp_path: Path) -> None:
    """A recipe is one name for all the settings it makes; what it does not explain is named itself."""
    for name, dim, tied in (("modern", 64, True), ("gpt2", 128, False)):
        run = make_run(tmp_path / name, [f"model.dim={dim}", f"model.tied={tied}"])
        record = json.loads((run / "run.json").read_text())
        record["overrides"] = [f"recipe={name}", f"run_dir={name}"]
        (run / "run.json").write_text(json.dumps(record))
    runs = runs_below(tmp_path)
    assert telling(runs) == ["recipe"]
    make_run(tmp_path / "other", ["optimizer.lr=0.1", "seed=3"])
    assert telling(runs_below(tmp_path)) == ["recipe", "optimizer.lr"]
    assert telling(runs_below(tmp_path), with_seed=True) == ["recipe", "optimizer.lr", "seed"]
    assert telling(runs[:1]) == []


def test_short_names() -> None:
    assert short_names(["a.lr", "b.lr", "c.dim", "lr", "x"]) == {
        "a.lr": "a.lr", "b.lr": "b.lr", "c.dim": "dim", "lr": "lr", "x": "x",
    }  # fmt: skip


def test_how_long_ago() -> None:
    assert [ago(seconds) for seconds in (-5, 59, 61, 7300, 200_000)] == [
        "just now", "just now", "1 min ago", "2 h ago", "2 d ago",
    ]  # fmt: skip


@pytest.mark.serial
def test_a_thousand_runs_in_seconds(tmp_path: Path) -> None:
    """As a process, with all it imports; each with a rate of its own. Two seconds on a quiet machine; of its processor,
    since others may run beside it, and half as much again for slow ones."""
    for place in range(1000):
        make_run(tmp_path / f"outputs/{place}", [f"optimizer.lr={1e-4 * (place + 1)}", f"seed={place % 3}"])
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [Path(sys.executable).with_name("slm-runs"), "sort=val_loss", "where=seed=1"]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert len(answer.stdout.splitlines()) == 1 + 333
    assert used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime < 3
