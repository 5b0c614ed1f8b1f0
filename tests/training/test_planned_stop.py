"""A run that is stopped as planned, by steps, by time or by a callback, goes on as the run that was not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from stopped_run import RUN

from slm.training.config import seconds_of

AT_ONCE = "trainer.max_time={milliseconds: 1}"
# a rate that ruins the model, warmed up: the schedule validates first when it is worse than it was
RUINOUS = (
    *("scheduler=constant", "scheduler.warmup_steps=8", "optimizer.lr=1", "trainer.grad_clip=0"),
    *("trainer.max_steps=12", "trainer.val_every=4", "callbacks=default"),
    *("callbacks.sample_text.max_new_tokens=2", "callbacks.sample_text.prompt=a"),
)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, invoke: Any, tiny: tuple[str, ...]) -> Callable[..., Path]:
    """``unbroken(*settings)``: the run in one go, made once."""
    made: dict[tuple[str, ...], Path] = {}

    def run(*settings: str) -> Path:
        if settings not in made:
            folder = tmp_path_factory.mktemp("unbroken")
            outcome = invoke(folder, "train", *tiny, *settings, "run_dir=run")
            assert outcome.status == 0, outcome.err
            made[settings] = folder / "run"
        return made[settings]

    return run


@pytest.fixture
def stopping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A setting for a callback that asks for the end in the second micro-batch of step 6."""
    (tmp_path / "stopping.py").write_text(
        "import pytorch_lightning as pl\n"
        "class Stopping(pl.Callback):\n"
        "    def on_train_batch_end(self, trainer, module, outputs, batch, index):\n"
        "        if (trainer.global_step, index % 3) == (5, 1): trainer.should_stop = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "+callbacks.stopping._target_=stopping.Stopping"


def checkpoint(run: Path, name: str = "last") -> dict[str, Any]:
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)


def position(run: Path) -> int:
    return next(v for key, v in checkpoint(run).items() if key.endswith("DataModule"))["position"]


def assert_same(run: Path, expected: Path, metrics_of: Any) -> None:
    assert metrics_of(run) == metrics_of(expected)
    files = {str(file.relative_to(run)): file for file in run.rglob("*") if file.is_file()}
    assert files.keys() == {str(file.relative_to(expected)) for file in expected.rglob("*") if file.is_file()}
    for name in files.keys() - {"metrics.csv", "summary.json", "run.json", "config.yaml"}:
        if not name.endswith(".ckpt"):
            assert files[name].read_bytes() == (expected / name).read_bytes(), name
    for name in ("last", "best"):
        one, other = checkpoint(run, name), checkpoint(expected, name)
        assert one["callbacks"] == other["callbacks"]
        assert all(torch.equal(one["state_dict"][key], value) for key, value in other["state_dict"].items())


@pytest.mark.nightly
def test_time_is_over_within_an_accumulation(
    unbroken: Any, run_cli: Any, tiny: tuple[str, ...], tmp_path: Path, metrics_of: Any
) -> None:
    """Lightning's own timer ended the run after a micro-batch: read, never trained on. And what it ended could not go
    on, as it kept the time that was used up: here each session has its own, and makes a step of six windows."""
    run = tmp_path / "run"
    outcome = run_cli("train", *tiny, *RUN, "run_dir=run", AT_ONCE)
    assert outcome.status == 0, outcome.err
    assert "trainer.max_time: 0.001 s are over; stops after step 1" in outcome.err
    assert (checkpoint(run)["global_step"], position(run)) == (1, 6)
    assert "val/loss" not in metrics_of(run)[0]
    assert json.loads((run / "summary.json").read_text())["val_loss"] > 0
    outcome = run_cli("train", "resume=run")
    assert "trainer.max_time: this session trains for 0.001 s from here" in outcome.err
    assert (checkpoint(run)["global_step"], position(run)) == (2, 12)
    assert run_cli("train", "resume=run", "trainer.max_time=null").status == 0
    assert_same(run, unbroken(*RUN), metrics_of)


@pytest.mark.nightly
def test_a_callback_asks_for_the_end_within_an_accumulation(
    unbroken: Any, run_cli: Any, tiny: tuple[str, ...], tmp_path: Path, metrics_of: Any, stopping: str
) -> None:
    """As time does: the step is made whole first."""
    run = tmp_path / "run"
    assert run_cli("train", *tiny, *RUN, "run_dir=run", stopping).status == 0
    assert (checkpoint(run)["global_step"], position(run)) == (6, 36)
    assert run_cli("train", "resume=run", "~callbacks.stopping").status == 0
    assert_same(run, unbroken(*RUN), metrics_of)


@pytest.mark.parametrize("stops", [pytest.param((2,), marks=pytest.mark.nightly), (3, 6, 10)])
def test_a_part_changes_nothing(
    unbroken: Any, train_tiny: Any, run_cli: Any, metrics_of: Any, stops: tuple[int, ...]
) -> None:
    """The validation at a part's end is off the schedule. It once could become the best, so that `model/` was of a
    step at which the unbroken run has no validation at all."""
    expected = unbroken(*RUINOUS)
    assert checkpoint(expected, "best")["global_step"] == 4, "the rate was meant to be ruinous"
    first, *others = stops
    run = train_tiny("run", *RUINOUS, f"stop_after={first}")
    for stop in others:
        assert run_cli("train", "resume=run", f"stop_after={stop}").status == 0
    loss = json.loads((run / "summary.json").read_text())["val_loss"]
    if stops == (2,):
        assert loss < float(metrics_of(expected)[3]["val/loss"]), "better than what is best on schedule"
    assert run_cli("train", "resume=run").status == 0
    assert_same(run, expected, metrics_of)


def test_a_stop_before_the_first_validation_leaves_a_model(train_tiny: Any, run_cli: Any) -> None:
    """Of the last weights, whose loss is told; a sweep in parts has something to compare."""
    run = train_tiny("run", *RUINOUS, "stop_after=2")
    assert json.loads((run / "model" / "config.json").read_text())["facts"]["step"] == 2
    summary = json.loads((run / "summary.json").read_text())
    assert summary["best_val_loss"] == summary["val_loss"]
    assert summary["best_step"] == 2
    assert run_cli("generate", "run=run", "prompt=a", "generation.max_new_tokens=2").status == 0


def test_saved_where_nothing_is_validated(train_tiny: Any) -> None:
    """A step that no validation follows, because there is none at all, was left for that validation to save."""
    run = train_tiny("run", "trainer.limit_val_batches=0", "trainer.val_every=2", "trainer.save_every=2")
    assert {"step_00000004.ckpt", "step_00000006.ckpt"} <= {file.name for file in (run / "checkpoints").iterdir()}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("10", "must be as 1h30m, or DD:HH:MM:SS, in YAML in quotes (00:01:30:00), or a mapping"),
        ("1hour", "must be as 1h30m"),
        ("0m", "must be more than no time; got '0m'"),
        ("{hour: 1}", "must be as 1h30m"),
        ("'00:00:00:00'", "must be more than no time; got '00:00:00:00'"),
        ("{hours: .nan}", "must be as 1h30m"),
    ],
)  # fmt: skip
def test_no_time(run_cli: Any, tiny: tuple[str, ...], value: str, said: str) -> None:
    outcome = run_cli("train", *tiny, f"trainer.max_time={value}")
    assert outcome.status == 2
    assert f"trainer.max_time: {said}" in outcome.err


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("10m", 600), ("1h30m", 5400), ("1d2h3m4s", 93784), ("90s", 90), ("45min", 2700), ("00:01:30:00", 5400)],
)
def test_times_as_people_write_them(value: str, seconds: int) -> None:
    assert seconds_of(value) == seconds


@pytest.mark.nightly
@pytest.mark.parametrize("place", ["new", "run"])
def test_a_branch_has_a_model_of_its_own(
    train_tiny: Any, run_cli: Any, metrics_of: Any, tmp_path: Path, place: str
) -> None:
    """It goes on from step 4, whose best it never beats, in a folder of its own or over later steps of its run. It once
    had no `model/`, or one of a step that it never made."""
    run = train_tiny("run", "trainer.max_steps=12", "trainer.val_every=4", "trainer.save_every=4", "trainer.keep=0")
    ruin = ("optimizer.lr=1", "scheduler=constant", "trainer.grad_clip=0")
    outcome = run_cli("train", f"resume={run}/checkpoints/step_00000004.ckpt", f"run_dir={place}", *ruin)
    assert outcome.status == 0, outcome.err
    losses = {int(row["step"]): float(row["val/loss"]) for row in metrics_of(tmp_path / place) if row["val/loss"]}
    own = {step: loss for step, loss in losses.items() if step > 4}
    assert min(own.values()) > float(metrics_of(run)[3]["val/loss"]), "the rate was meant to be ruinous"
    facts = json.loads((tmp_path / place / "model" / "config.json").read_text())["facts"]
    assert (facts["step"], facts["loss"]) == min(own.items(), key=lambda item: item[1])
    assert checkpoint(tmp_path / place, "best")["global_step"] == facts["step"]
    assert run_cli("generate", f"run={place}", "prompt=a", "generation.max_new_tokens=2").status == 0


def test_nobody_waits_for_a_step_that_is_not_made(train_tiny: Any, run_cli: Any) -> None:
    """A timer of Lightning's keeps the time that is used up: it is said that nothing was done."""
    timer = (
        "+callbacks.timer._target_=pytorch_lightning.callbacks.Timer",
        "+callbacks.timer.duration={milliseconds: 1}",
    )
    train_tiny("run", *timer)
    outcome = run_cli("train", "resume=run")
    assert "no step was made: a callback asked for the end before the first one" in outcome.err
