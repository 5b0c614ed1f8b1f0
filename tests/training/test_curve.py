"""A run ends with a picture of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import slm.plots.curves
from slm.training.watch.curve import CURVE_FILE

CURVE = "+callbacks.curve._target_=slm.training.watch.curve.Curve"


def test_a_run_is_drawn_once_it_is_saved(train_tiny: Any) -> None:
    run = train_tiny("run", CURVE)
    picture = (run / CURVE_FILE).read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) < 60_000
    assert [file.name for file in run.glob("curve*")] == [CURVE_FILE]


def test_a_picture_that_fails_costs_nothing_but_a_line(
    run_cli: Any, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("no fonts")

    monkeypatch.setattr(slm.plots.curves, "run_curve", broken)
    outcome = run_cli("train", *tiny, CURVE, "run_dir=run")
    assert outcome.status == 0, outcome.err
    assert "curve.png is not drawn (RuntimeError: no fonts)" in outcome.err
    assert (tmp_path / "run/summary.json").is_file()
    assert not (tmp_path / "run" / CURVE_FILE).exists()


def test_jobs_of_a_sweep_are_not_drawn(run_cli: Any, tiny: tuple[str, ...], tmp_path: Path) -> None:
    """A second each, and the report of the sweep has the curves of all."""
    outcome = run_cli("train", "-m", *tiny, CURVE, "run_dir=sweep", "seed=1,2", "trainer.max_steps=2")
    assert outcome.status == 0, outcome.err
    assert len(list((tmp_path / "sweep").glob("*/metrics.csv"))) == 2
    assert not list((tmp_path / "sweep").glob(f"*/{CURVE_FILE}"))


def test_it_takes_no_setting(run_cli: Any, tiny: tuple[str, ...]) -> None:
    outcome = run_cli("train", *tiny, CURVE, "+callbacks.curve.dpi=100", "run_dir=run")
    assert outcome.status == 2
    assert "callbacks.curve.dpi" in outcome.err
