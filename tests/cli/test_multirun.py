"""Sweeps: a folder a run, one table, and a number that any sweeper can minimise."""

from __future__ import annotations

import csv
import json
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


def test_a_job_that_fails_takes_no_other_with_it(run_cli: Any, short: tuple[str, ...], tmp_path: Path) -> None:
    """The others run and are in the table; the error names the job, its folder is taken back, the status is 2."""
    outcome = run_cli("train", *short, "-m", "optimizer.lr=1e-4,0,3e-4")
    assert outcome.status == 2
    assert "optimizer.lr=0" in outcome.err.splitlines()[-2]
    assert outcome.err.splitlines()[-1] == "slm-train: optimizer.lr should be greater than 0; got 0"
    assert [row["optimizer.lr"] for row in table(tmp_path)] == ["0.0001", "0.0003"]
    (sweep,) = (tmp_path / "outputs/sweeps").iterdir()
    assert {entry.name for entry in sweep.iterdir()} == {"0", "2", "sweep.csv", "multirun.yaml"}


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
