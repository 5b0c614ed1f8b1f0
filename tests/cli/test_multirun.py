"""Sweeps: a folder a run, one table, and a number that any sweeper can minimise."""

from __future__ import annotations

import contextlib
import csv
import json
import sqlite3
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
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture
def short(tiny: tuple[str, ...]) -> tuple[str, ...]:
    kept = [setting for setting in tiny if not setting.startswith("optimizer.lr=")]
    return (*kept, "trainer.max_steps=2", "trainer.val_every=2")


def test_a_grid(run_cli: Any, short: tuple[str, ...], tmp_path: Path) -> None:
    """Four runs, each a run folder of its own that later commands take, and a row a run."""
    outcome = run_cli("train", *short, "-m", "optimizer.lr=1e-4,3e-4", "seed=1,2")
    assert outcome.status == 0, outcome.err
    rows = table(tmp_path)
    settings = [("0.0001", "1"), ("0.0001", "2"), ("0.0003", "1"), ("0.0003", "2")]
    assert [(row["run"], row["optimizer.lr"], row["seed"]) for row in rows] == [
        (str(job), *setting) for job, setting in enumerate(settings)
    ]
    losses = [float(row["best_val_loss"]) for row in rows]
    assert len(set(losses)) == 4
    folders = outcome.out.split()
    assert len(set(folders)) == 4
    for folder, loss in zip(folders, losses, strict=True):
        evaluated = run_cli("evaluate", f"run={folder}", "batch_size=4")
        assert json.loads(evaluated.out)["loss"] == pytest.approx(loss, abs=1e-5)


def test_jobs_that_fail_take_no_other_with_them(run_cli: Any, short: tuple[str, ...], tmp_path: Path) -> None:
    """One of two failures was told, at the end and in Hydra's words; neither was in the table. Status 2."""
    outcome = run_cli("train", *short, "-m", "optimizer.lr=1e-4,0,3e-4,-1", "run_dir=my sweep")
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
    outcome = run_cli("train", *raising, "-m", "seed=1,2", broken, "optimizer.lr=1e-3")
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


def test_optuna_minimises_the_validation_loss(run_cli: Any, short: tuple[str, ...], tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    outcome = run_cli(
        "train", *short, "-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=1",
        "optimizer.lr=interval(1e-4,1e-2)",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    rows = table(tmp_path)
    assert len({row["optimizer.lr"] for row in rows}) == 3
    (file,) = (tmp_path / "outputs/sweeps").glob("*/optimization_results.yaml")
    best = yaml.safe_load(file.read_text())
    assert best["best_value"] == min(float(row["best_val_loss"]) for row in rows)


def test_optuna_goes_on_with_a_study_it_stored(run_cli: Any, short: tuple[str, ...], tmp_path: Path) -> None:
    """`constraints.txt` locked a SQLAlchemy that Optuna 2 cannot make its tables with: an AssertionError."""
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    sqlalchemy = pytest.importorskip("sqlalchemy")
    if not sqlalchemy.__version__.startswith("1."):
        pytest.skip(f"SQLAlchemy {sqlalchemy.__version__}: install with -c constraints.txt")
    optuna = ("-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=1")
    stored = ("hydra.sweeper.storage=sqlite:///study.db", "hydra.sweeper.study_name=rates")
    for folder in ("one", "two"):
        outcome = run_cli("train", *short, *optuna, *stored, f"run_dir={folder}", "optimizer.lr=interval(1e-4,1e-2)")
        assert outcome.status == 0, outcome.err
    with contextlib.closing(sqlite3.connect(tmp_path / "study.db")) as study:
        assert study.execute("select count(*) from trials where state = 'COMPLETE'").fetchone() == (4,)


def test_an_impossible_trial_does_not_end_an_optuna_sweep(run_cli: Any, short: tuple[str, ...], tmp_path: Path) -> None:
    """It did, at once; and with no loss at all there was a traceback of Optuna's."""
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    optuna = ("-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=1", "run_dir=sweep")
    outcome = run_cli("train", *short, *optuna, "optimizer.lr=choice(0,1e-3)", "hydra.sweeper.sampler.seed=1")
    assert outcome.status == 2
    with (tmp_path / "sweep/sweep.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["optimizer.lr"] == "0" for row in rows] == [bool(row["error"]) for row in rows]
    assert {row["optimizer.lr"] for row in rows} == {"0", "0.001"}
    best = yaml.safe_load((tmp_path / "sweep/optimization_results.yaml").read_text())
    assert best["best_value"] == min(float(row["best_val_loss"]) for row in rows if row["best_val_loss"])
    none = run_cli("train", *short, *optuna, "trainer.limit_val_batches=0", "optimizer.lr=choice(1e-4,1e-3)")
    assert none.status == 2
    assert "trainer.limit_val_batches=0 leaves no validation loss, which the sweeper is to minimise" in none.err
    assert none.err.splitlines()[-1].startswith("slm-train: no job came to a validation loss")


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
    outcome = run_cli("train", *short, "-m", "seed=1,2")
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
