"""Sweeps on the command line: a folder a run and one table, by our sweeper and by Hydra's own."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml


def table(folder: Path) -> list[dict[str, str]]:
    """The rows of the one sweep below `folder`."""
    (file,) = (folder / "outputs/sweeps").glob("*/sweep.csv")
    return read(file)


def read(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture
def short(tiny: tuple[str, ...]) -> tuple[str, ...]:
    kept = [setting for setting in tiny if not setting.startswith("optimizer.lr=")]
    return (*kept, "trainer.max_steps=2", "trainer.val_every=2")


def test_a_grid(run_cli: Any, short: tuple[str, ...], tmp_path: Path, metrics_of: Any) -> None:
    """A run folder a trial that later commands take, equal to a run of its own; a row a trial, of the failed ones too.
    Typed again it does nothing more."""
    typed = ("train", *short, "-m", "optimizer.lr=1e-4,0", "seed=1,2", "sweep.threads=1")
    outcome = run_cli(*typed)
    assert outcome.status == 2, outcome.err
    said = "optimizer.lr should be greater than 0; got 0"
    assert outcome.err.splitlines()[-2:] == [f"slm-train: trial lr=0,seed={seed}: {said}" for seed in (1, 2)]
    rows = table(tmp_path)
    assert [(row["run"], row["state"], row["error"]) for row in rows] == [
        (f"lr={lr},seed={seed}", *(("failed", said) if lr == "0" else ("done", "")))
        for lr in ("0.0001", "0")
        for seed in (1, 2)
    ]
    done = [row for row in rows if row["state"] == "done"]
    assert len({row["best_val_loss"] for row in done}) == 2
    folders = outcome.out.split()
    assert [Path(folder).name for folder in folders] == [row["run"] for row in done]
    evaluated = run_cli("evaluate", f"run={folders[0]}", "batch_size=4")
    assert json.loads(evaluated.out)["loss"] == pytest.approx(float(done[0]["best_val_loss"]), abs=1e-5)
    alone = run_cli("train", *short, "optimizer.lr=0.0001", "seed=1", "run_dir=alone")
    assert alone.status == 0, alone.err
    assert metrics_of(tmp_path / "alone") == metrics_of(tmp_path / folders[0])
    record = [json.loads((folder / "run.json").read_text()) for folder in (tmp_path / "alone", tmp_path / folders[0])]
    assert record[0]["overrides"] == record[1]["overrides"]
    written = [file.stat().st_mtime_ns for file in sorted(tmp_path.rglob("summary.json"))]
    sweep = Path(folders[0]).parent
    again = run_cli(*typed, f"run_dir={sweep}")
    assert (again.status, again.out) == (2, outcome.out)
    assert [file.stat().st_mtime_ns for file in sorted(tmp_path.rglob("summary.json"))] == [*written]
    other = run_cli("train", *short, "-m", "optimizer.lr=1e-4,2e-4", f"run_dir={sweep}")
    assert other.status == 2
    assert "holds another sweep, which differs in" in other.err


def test_what_a_sweep_cannot_take_is_told(run_cli: Any, short: tuple[str, ...], tmp_path: Path) -> None:
    for typed, said in (
        (["-m", "optimizer.lr=interval(1e-4,1e-2)"], "sweep=random and sweep=tpe draw from it"),
        (["-m", "seed=interval(1,9)", "sweep=random"], "seeds repeat a setting; name them, e.g. seed=1,2,3"),
        (["-m", "seed=1,2", "sweep.trials=3"], "a grid tries every combination"),
        (["-m", "seed=1,2", "sweep.wrokers=3"], "did you mean 'sweep.workers'?"),
        (["-m", "seed=1,2", "sweep.storage=mysql://x"], "should begin with postgresql:// or sqlite:///"),
        (["-m", "seed=1,2", "sweep.workers=2", "hydra/launcher=basic"], "leave out hydra/sweeper and hydra/launcher"),
        (["-m", "sweep.join=nowhere"], "'nowhere' holds no sweep (study.json)"),
        (["sweep.workers=2"], "sweep.workers=2 is read in a sweep alone; add -m"),
    ):
        outcome = run_cli("train", *short, *typed)
        assert outcome.status == 2, typed
        assert said in outcome.err, outcome.err
    assert not (tmp_path / "outputs").exists()


def test_jobs_that_fail_take_no_other_with_them(run_cli: Any, short: tuple[str, ...], tmp_path: Path) -> None:
    """One of two failures was told, at the end and in Hydra's words; neither was in the table. Status 2."""
    basic = ("hydra/sweeper=basic", "optimizer.lr=1e-4,0,3e-4,-1", "run_dir=my sweep")
    outcome = run_cli("train", *short, "-m", *basic)
    assert outcome.status == 2
    told = outcome.err.splitlines()
    lines = [
        f"job {job} (optimizer.lr={lr}): optimizer.lr should be greater than 0; got {lr}"
        for job, lr in ((1, "0"), (3, "-1"))
    ]
    assert told[-2:] == [f"slm-train: {line}" for line in lines]
    assert [line for line in told[:-2] if line.startswith("job ")] == [
        f"{line}; the other jobs go on" for line in lines
    ]
    sweep = tmp_path / "my sweep"  # ``run_dir`` was ignored in a sweep
    with (sweep / "sweep.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["optimizer.lr"] for row in rows] == ["0.0001", "0", "0.0003", "-1"]
    assert [bool(row["error"]) for row in rows] == [False, True, False, True]
    assert {entry.name for entry in sweep.iterdir()} == {"0", "1", "2", "3", "sweep.csv", "multirun.yaml"}
    assert [entry.name for entry in (sweep / "1").iterdir()] == ["failed.json"]


def test_a_bug_in_a_job_is_told_with_its_traceback(run_cli: Any, short: tuple[str, ...]) -> None:
    """And the others go on; the status is that of a bug."""
    raising = [setting for setting in short if not setting.startswith("callbacks")]
    broken = "+callbacks.broken={_target_: slm.training.watch.sample_text.SampleText.on_train_start}"
    outcome = run_cli("train", *raising, "-m", "hydra/sweeper=basic", "seed=1,2", broken, "optimizer.lr=1e-3")
    assert outcome.status in (1, 2), outcome.err
    assert outcome.err.count("; the other jobs go on") == 2


@pytest.mark.nightly
def test_a_sweep_over_paths(run_cli: Any, short: tuple[str, ...], tmp_path: Path) -> None:
    """A path's comma means itself in a single run and sweeps in a multirun."""
    for name in ("a.txt", "b.txt", "a.txt,b.txt"):
        (tmp_path / name).write_text(f"{name} holds these words. " * 50)
    outcome = run_cli("train", *short, "-m", "data.path=a.txt,b.txt")
    assert outcome.status == 0, outcome.err
    assert [row["data.path"] for row in table(tmp_path)] == ["a.txt", "b.txt"]
    single = run_cli("train", *short, "data.path=a.txt,b.txt", "run_dir=single")
    assert single.status == 0, single.err
    assert yaml.safe_load((tmp_path / "single/config.yaml").read_text())["data"]["path"] == "a.txt,b.txt"
    both = run_cli("train", *short, "data.path=[a.txt,b.txt]", "run_dir=both")
    assert both.status == 0, both.err
    assert yaml.safe_load((tmp_path / "both/config.yaml").read_text())["data"]["path"] == ["a.txt", "b.txt"]


@pytest.mark.nightly
def test_tpe_minimises_the_validation_loss(run_cli: Any, short: tuple[str, ...], tmp_path: Path) -> None:
    """Over an interval with choices beside it; a trial that is impossible does not end it."""
    choices = "model.modules.transformer.n_heads=choice(2,3)"
    typed = ("train", *short, "-m", "sweep=tpe", "sweep.trials=4", "optimizer.lr=tag(log,interval(1e-4,1e-2))", choices)
    outcome = run_cli(*typed, "run_dir=sweep")
    assert outcome.status == 2
    rows = read(tmp_path / "sweep/sweep.csv")
    assert len({row["optimizer.lr"] for row in rows}) == 4
    heads = "model.modules.transformer.n_heads"
    failures = {(row[heads], row["error"].partition(":")[0]) for row in rows}
    assert failures == {("2", ""), ("3", "model.modules.transformer")}
    more = run_cli(*typed, "run_dir=sweep", "sweep.trials=6")
    assert more.status == 2
    assert read(tmp_path / "sweep/sweep.csv")[:4] == rows
    assert len(read(tmp_path / "sweep/sweep.csv")) == 6


@pytest.mark.nightly
def test_a_trial_that_takes_too_much_memory_is_a_row(run_cli: Any, short: tuple[str, ...], tmp_path: Path) -> None:
    """Of twelve one is impossible, and one runs out of memory: ten results, two rows with their reason."""
    widths = ",".join(str(width) for width in (*range(16, 176, 16), 33, 8192))
    typed = (f"model.modules.transformer.dim={widths}", "sweep.memory=1GiB", "run_dir=sweep")
    outcome = run_cli("train", *short, "-m", *typed)
    assert outcome.status == 2, outcome.err
    rows = {row["run"]: row for row in read(tmp_path / "sweep/sweep.csv")}
    assert "must be a multiple of n_heads" in rows.pop("dim=33")["error"]
    assert rows.pop("dim=8192")["error"].startswith("out of memory")
    assert [row["state"] for row in rows.values()] == ["done"] * 10


def test_an_interruption_that_hydra_hides_is_one(
    run_cli: Any, short: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a YAML file was being opened, between two jobs: "cannot access local variable 'f'"."""
    opened = Path.open

    def interrupted(self: Path, *arguments: Any, **others: Any) -> Any:
        if self.name == "cosine.yaml":
            raise KeyboardInterrupt
        return opened(self, *arguments, **others)

    monkeypatch.setattr(Path, "open", interrupted)
    outcome = run_cli("train", *short, "-m", "hydra/sweeper=basic", "seed=1,2")
    assert (outcome.status, outcome.err) == (130, "slm-train: interrupted\n")


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_workers_end_with_the_launcher(short: tuple[str, ...], tmp_path: Path) -> None:
    """A sweep of joblib's that was killed left two processes of half a gigabyte."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    command = [Path(sys.executable).with_name("slm-train"), *short, "-m", "hydra/launcher=joblib"]
    settings = ["hydra.launcher.n_jobs=2", "seed=1,2", "trainer.max_steps=100000", "trainer.val_every=100000"]
    sweep = subprocess.Popen([*command, *settings, "run_dir=sweep"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: len(list(tmp_path.glob("sweep/*/metrics.csv"))) == 2)
        workers = children(sweep.pid)
    finally:
        sweep.kill()
        sweep.wait()
    assert len(workers) >= 2
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


def children(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.parametrize(
    ("launcher", "settings"),
    [("joblib", ["hydra.launcher.n_jobs=2"]), ("submitit_local", ["hydra.launcher.timeout_min=2"])],
)
def test_launchers(run_cli: Any, short: tuple[str, ...], tmp_path: Path, launcher: str, settings: list[str]) -> None:
    """Jobs in processes of their own, that know nothing of this one but what the launcher hands them."""
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher")
    outcome = run_cli("train", *short, "-m", f"hydra/launcher={launcher}", *settings, "seed=1,2")
    assert outcome.status == 0, outcome.err
    rows = table(tmp_path)
    assert [(row["run"], row["seed"]) for row in rows] == [("0", "1"), ("1", "2")]
    assert all(float(row["best_val_loss"]) > 0 for row in rows)
