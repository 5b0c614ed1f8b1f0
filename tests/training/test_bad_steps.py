"""Steps whose loss or gradient is not finite: left out, gone back from, or the end; never in a checkpoint."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from slm.errors import UserError
from slm.study.run_record import read_run
from slm.training.figures import StepFigures, StepReader
from slm.training.optim.parameter_groups import leave_finding, leave_out_if_bad
from slm.training.run.checkpoint_io import read_checkpoint
from slm.training.run_again import RunData

BATCH = 4
TEN = ("trainer.max_steps=10", "trainer.val_every=5", "trainer.save_every=2", "trainer.keep=0", "optimizer.fused=false")


class Poison(pl.Callback):
    """Spoils the step that ends at one of these positions in the data, on the first rank.

    "gradient" puts nan into a gradient; "loss" makes the loss inf, of which the gradient knows nothing; "weights" puts
    inf into a weight behind the step's back.
    """

    def __init__(self, kind: str, at: list[int]) -> None:
        self.kind = kind
        self.at = at

    def _due(self, trainer: Any, kind: str) -> bool:
        return trainer.is_global_zero and kind == self.kind and trainer.datamodule.position in self.at

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        if self._due(trainer, "gradient"):
            next(pl_module.model.parameters()).grad[0] = math.nan

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
        self.hook.remove()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        # the position is advanced by the module, which comes next
        position = trainer.datamodule.position + trainer.datamodule.batch_size * trainer.world_size
        add = math.inf if trainer.is_global_zero and self.kind == "loss" and position in self.at else 0.0
        self.hook = pl_module.loss.register_forward_hook(lambda module, given, nll: nll + add)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self._due(trainer, "weights"):
            next(pl_module.model.parameters()).data[0, 0] = math.inf


def poison(kind: str, *positions: int) -> tuple[str, ...]:
    target = f"+callbacks.poison._target_={__name__}.Poison"
    return target, f"+callbacks.poison.kind={kind}", f"+callbacks.poison.at=[{','.join(map(str, positions))}]"


def saved(run: Path, step: int) -> dict[str, Any]:
    return read_checkpoint(run / "checkpoints" / f"step_{step:08d}.ckpt")


def tensors(checkpoint: dict[str, Any]) -> dict[str, torch.Tensor]:
    moments = checkpoint["optimizer_states"][0]["state"]
    return {**checkpoint["state_dict"], **{f"{n}{k}": v for n, state in moments.items() for k, v in state.items()}}


def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(torch.equal(value, tensors(other)[name]) for name, value in tensors(one).items())


def bad_steps(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "bad_steps.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kind", ["gradient", pytest.param("loss", marks=pytest.mark.nightly)])
@pytest.mark.parametrize("clip", [1.0, pytest.param(0.0, marks=pytest.mark.nightly)])
def test_skipped(train_tiny: Any, metrics_of: Any, text_file: Path, kind: str, clip: float) -> None:
    """Nothing of the step reaches weights, moments or the optimizer's own count; the schedule and the data go on."""
    changes = (*TEN, "trainer.save_every=1", f"trainer.grad_clip={clip}", "trainer.global_batch_size=8")
    clean = train_tiny("clean", *changes)
    run = train_tiny("run", *changes, *poison(kind, 32))
    assert equal(saved(run, 3), saved(clean, 3))
    assert equal(saved(run, 4), saved(run, 3))
    assert not equal(saved(run, 5), saved(run, 4))
    assert [saved(run, step)["TextDataModule"]["position"] for step in (4, 10)] == [32, 80]
    rows, expected = metrics_of(run), metrics_of(clean)
    assert [row["train/lr"] for row in rows] == [row["train/lr"] for row in expected]
    assert [row["train/loss"] for row in rows[:3]] == [row["train/loss"] for row in expected[:3]]
    assert rows[3]["train/loss"] == "nan", "it is of no step"
    assert all(math.isfinite(float(row["train/loss"])) for row in rows[4:])
    assert [row["train/bad_steps"] for row in rows] == ["", "", "", *["1"] * 7]
    assert float(rows[9]["train/tokens"]) == 9 * 8 * 16
    (bad,) = bad_steps(run)
    assert (bad["step"], bad["kind"], bad["positions"], len(bad["samples"])) == (4, kind, [24, 32], 8)
    assert (bad["grad_norm"], bad["loss"] == "inf") == ("nan", kind == "loss")
    assert RunData.of(run).text(bad["samples"][0])[0] in text_file.read_text()
    assert json.loads((run / "summary.json").read_text())["bad_steps"] == 1


@pytest.mark.nightly
def test_a_row_of_several_steps(train_tiny: Any, metrics_of: Any) -> None:
    """The mean over the steps since the last row is that of those that count."""
    one = metrics_of(train_tiny("one", *TEN, *poison("gradient", 12)))
    five = metrics_of(train_tiny("five", *TEN, *poison("gradient", 12), "trainer.log_every=5"))
    counted = [float(row["train/loss"]) for row in one[1:5] if row["train/loss"] != "nan"]
    assert len(counted) == 3
    assert [row["step"] for row in five[:2]] == ["1", "5"], "the first step has a row of its own"
    assert float(five[1]["train/loss"]) == pytest.approx(sum(counted) / 3, rel=1e-6)


@pytest.mark.nightly
@pytest.mark.parametrize("on_bad_step", ["skip", "rewind"])
def test_in_parts(train_tiny: Any, run_cli: Any, metrics_of: Any, on_bad_step: str) -> None:
    """Killed after a bad step and gone on from a checkpoint of before or after it, the run is the run."""
    changes = (*TEN, *poison("gradient", 20, 36), f"trainer.on_bad_step={on_bad_step}")
    whole = train_tiny("whole", *changes)
    parts = whole.with_name("parts")
    for checkpoint in (2, 8):
        shutil.copytree(whole, parts)
        typed = poison("gradient", 20, 36)[0]  # code that a run's folder names is typed again
        outcome = run_cli("train", f"resume=parts/checkpoints/step_{checkpoint:08d}.ckpt", typed)
        assert outcome.status == 0, outcome.err
        assert metrics_of(parts) == metrics_of(whole)
        assert bad_steps(parts) == bad_steps(whole)
        assert equal(saved(parts, 10), saved(whole, 10))
        shutil.rmtree(parts)


def test_gone_back_from(train_tiny: Any, run_cli: Any, metrics_of: Any, tmp_path: Path) -> None:
    """From step 7 to the checkpoint of 6 and on over what follows: as a run resumed there whose data is moved on.
    Random states, schedule, best loss and rows of the table are those of the checkpoint."""
    changes = (*TEN, "model.params.dropout=0.1", "trainer.on_bad_step=rewind")
    run = train_tiny("run", *changes, *poison("gradient", 28))
    expected = train_tiny("expected", *changes, "stop_after=6")
    for file in (expected / "checkpoints").glob("*"):
        content = torch.load(file, weights_only=True)
        content["TextDataModule"]["position"] = 28
        file.unlink()
        torch.save(content, file)
    outcome = run_cli("train", "resume=expected")
    assert outcome.status == 0, outcome.err
    rows = metrics_of(run)
    for row, other in zip(rows, metrics_of(expected), strict=True):
        differing = {name for name in other if other[name] != row[name]}
        assert all(name.startswith("val/") and row["step"] == "6" for name in differing), (row, other)
    assert equal(saved(run, 10), saved(expected, 10))
    assert saved(run, 10)["TextDataModule"]["position"] == 28 + 4 * BATCH
    assert [row["step"] for row in rows] == [str(step) for step in range(1, 11)]
    assert bad_steps(run)[0]["action"] == "rewind"


def test_gone_back_over_a_validation(train_tiny: Any, metrics_of: Any) -> None:
    """The checkpoint's step was validated when it was made; the bad one, which was to be, is not."""
    run = train_tiny("run", *TEN, "trainer.val_every=2", "trainer.on_bad_step=rewind", *poison("loss", 24))
    rows = metrics_of(run)
    assert [row["step"] for row in rows if row["val/loss"]] == ["2", "4", "6", "8", "10"]
    assert saved(run, 10)["TextDataModule"]["position"] == (10 + 2) * BATCH


def test_stopped(train_tiny: Any, run_cli: Any, tiny: tuple[str, ...], tmp_path: Path) -> None:
    """One line and what to do; the state of before is there, and goes on without the step if so wanted."""
    outcome = run_cli("train", *tiny, *TEN, "run_dir=run", "trainer.on_bad_step=stop", *poison("gradient", 20))
    assert outcome.status == 2
    said = outcome.err.splitlines()[-1]
    assert "step 5: the gradient is nan, its update is left out (run/bad_steps.jsonl)" in said
    assert "the last good state is run/checkpoints/last.ckpt (resume=run)" in said
    assert read_checkpoint(tmp_path / "run/checkpoints/last.ckpt")["global_step"] == 4
    run = read_run(tmp_path / "run")
    assert (run.state, "step 5: the gradient is nan" in str(run.error)) == ("failed", True)
    assert run_cli("train", "resume=run", "trainer.on_bad_step=skip", poison("gradient", 20)[0]).status == 0


@pytest.mark.nightly
def test_too_many_in_a_row(run_cli: Any, tiny: tuple[str, ...], tmp_path: Path) -> None:
    """Two are borne, a good step between begins the count anew, three are not; gone back from, the count is of the
    same checkpoint."""
    command = ("train", *tiny, *TEN, "trainer.max_bad_steps=2")
    assert run_cli(*command, "run_dir=a", *poison("gradient", 8, 12, 20, 24)).status == 0
    outcome = run_cli(*command, "run_dir=b", *poison("gradient", 8, 12, 16))
    assert (outcome.status, "more than trainer.max_bad_steps=2" in outcome.err) == (2, True)
    back = ("trainer.on_bad_step=rewind", "run_dir=c", *poison("gradient", 12, 16, 24, 28, 32))
    outcome = run_cli(*command, *back)
    assert outcome.status == 2
    assert [line["step"] for line in bad_steps(tmp_path / "c")] == [3, 3, 4]
    assert "more than trainer.max_bad_steps=2" in outcome.err


def test_weights_that_are_not_finite_are_not_saved(run_cli: Any, tiny: tuple[str, ...], tmp_path: Path) -> None:
    """Whatever brought them about: the checkpoint of before stays."""
    outcome = run_cli("train", *tiny, *TEN, "run_dir=run", *poison("weights", 16))
    assert outcome.status == 2
    assert "weights are not finite after step 4; the last good state is run/checkpoints/last.ckpt" in outcome.err
    assert read_checkpoint(tmp_path / "run/checkpoints/last.ckpt")["global_step"] == 2


@pytest.mark.nightly
def test_two_ranks_decide_alike(train_tiny: Any, tiny: tuple[str, ...], cache_dir: Path, tmp_path: Path) -> None:
    """The loss of one rank is inf, with a gradient that is finite by itself: both leave the step out, else they would
    wait for each other for ever or learn different weights."""
    changes = (*TEN, "trainer.global_batch_size=8", "trainer.max_steps=6", *poison("loss", 24))
    one = train_tiny("one", *changes)
    outcome = subprocess.run(
        [Path(sys.executable).with_name("slm-train"), *tiny, *changes, "run_dir=two", "trainer.devices=2"],
        cwd=tmp_path,
        env={**os.environ, "SLM_CACHE_DIR": str(cache_dir), "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert outcome.returncode == 0, outcome.stderr
    two = tmp_path / "two"
    assert [line["step"] for line in bad_steps(two)] == [3]
    assert bad_steps(two)[0]["samples"] == bad_steps(one)[0]["samples"]
    ours, theirs = tensors(saved(one, 6)), tensors(saved(two, 6))
    assert all(torch.allclose(ours[name].float(), theirs[name].float(), atol=1e-4) for name in ours)


@pytest.mark.parametrize("on_device", [False, True])
def test_torch_passes_over_the_step(on_device: bool) -> None:
    """What is relied on of torch: no gradient, or a fused kernel that is told, means no change at all."""
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight], lr=0.1, weight_decay=0.1, fused=on_device)
    assert getattr(optimizer, "_step_supports_amp_scaling", False) == on_device

    def step(gradient: float) -> list[torch.Tensor]:
        weight.grad = torch.full((3,), gradient)
        norm = weight.grad.norm()
        leave_finding(optimizer, norm) if on_device else leave_out_if_bad(optimizer, norm, None)
        optimizer.step()
        return [weight.detach().clone(), *(value.clone() for value in optimizer.state[weight].values())]

    first = step(1.0)
    assert all(torch.equal(a, b) for a, b in zip(first, step(math.inf), strict=True))
    assert not torch.equal(first[0], step(1.0)[0])


def test_read_a_step_late() -> None:
    """Of a GPU the last step's figures are waited for only if they are asked for."""

    class Event:
        waited = False

        def synchronize(self) -> None:
            self.waited = True

    reader, events = StepReader(), [Event(), Event()]
    for step, event in enumerate(events):
        reader.put(StepFigures(step, (0, 1), 0.0, 2, 2, 0.0), torch.tensor([[6.0], [0.0]]), torch.tensor(1.0))
        reader._under_way[-1] = (*reader._under_way[-1][:2], event)  # type: ignore[assignment]
    (first,) = reader.take(wait=False)
    assert (first.step, first.loss, events[0].waited, events[1].waited) == (0, 3.0, True, False)
    assert [figures.step for figures in reader.take(wait=True)] == [1]


def test_there_is_no_such_sample(tiny_run: Path) -> None:
    """The count of windows is told."""
    with pytest.raises(UserError, match="there is no window 999999; they are 0 to"):
        RunData.of(tiny_run).text(999999)
