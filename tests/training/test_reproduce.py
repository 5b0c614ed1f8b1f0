"""A run made again from its folder is the run, and what was tampered with is found."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from slm.training.run.checkpoint_io import read_checkpoint


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, invoke: Any, tiny: tuple[str, ...]) -> Path:
    """Six steps, in two parts, with dropout."""
    folder = tmp_path_factory.mktemp("made")
    settings = ("model.params.dropout=0.1", "trainer.keep=0", "trainer.val_every=4")
    assert invoke(folder, "train", *tiny, *settings, "run_dir=run", "stop_after=3").status == 0
    assert invoke(folder, "train", "resume=run").status == 0
    return folder / "run"


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy to tamper with."""
    return shutil.copytree(made, tmp_path / "run")


def test_equal(run: Path, run_cli: Any) -> None:
    """Also of a run in parts, whose first part ended with a validation of its own; the folder is as it was."""
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    outcome = run_cli("reproduce", "run=run")
    assert (outcome.status, outcome.err) == (0, "")
    # loss, rate, norm and tokens of six steps, and a validation at the fourth and sixth
    assert outcome.out == "equal over 6 steps (30 values, checkpoint step 2, 4, 6)\n"
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before
    said = json.loads(run_cli("reproduce", "run=run", "steps=2", "json=true").out)
    assert (said["equal"], said["steps"], said["checkpoints"], said["divergence"]) == (True, 2, [2], None)


def test_an_edited_value(run: Path, run_cli: Any) -> None:
    """The last digit of one number."""
    with (run / "metrics.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    then = rows[4]["train/loss"]
    rows[4]["train/loss"] = repr(float(then) + 1e-12)
    with (run / "metrics.csv").open("w", newline="") as out:
        writer = csv.DictWriter(out, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    outcome = run_cli("reproduce", "run=run")
    assert outcome.status == 1
    assert outcome.out.startswith(f"diverged at step 5: train/loss: {rows[4]['train/loss']} -> {then} (difference 1")
    assert run_cli("reproduce", "run=run", "steps=4").status == 0


def test_another_setting(run: Path, run_cli: Any) -> None:
    """The first value that it changes is named."""
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("  lr: 0.002\n", "  lr: 0.003\n"))
    outcome = run_cli("reproduce", "run=run", "json=true")
    assert outcome.status == 1
    divergence = json.loads(outcome.out)["divergence"]
    assert (divergence["step"], divergence["where"]) == (1, "train/lr")


def test_another_tensor(run: Path, run_cli: Any) -> None:
    """One bit of a moment, of a step whose figures are the same."""
    file = run / "checkpoints/step_00000004.ckpt"
    content = read_checkpoint(file)
    content["optimizer_states"][0]["state"][0]["exp_avg"].view(torch.int32)[0, 0] += 1
    file.unlink()
    torch.save(content, file)
    outcome = run_cli("reproduce", "run=run")
    assert outcome.status == 1
    assert "diverged at step 4: optimizer.0.exp_avg: 1 of " in outcome.out


def test_other_versions_are_named(run: Path, run_cli: Any) -> None:
    """They may be why it diverges, or may not matter."""
    record = json.loads((run / "run.json").read_text())
    record["sessions"][0]["versions"]["torch"] = "1.0"
    record["sessions"][0]["environment"]["SLM_NATIVE"] = "7"
    (run / "run.json").write_text(json.dumps(record))
    said = run_cli("reproduce", "run=run", "steps=1").out.splitlines()
    assert f"not as then: torch: 1.0 -> {torch.__version__}" in said
    assert "not as then: SLM_NATIVE: 7 -> None" in said
    assert said[-1].startswith("equal over 1 steps")


def test_mistakes(run: Path, run_cli: Any, tmp_path: Path) -> None:
    """Other data, no run, no such step, a run of several processes: one line, status 2."""
    other = tmp_path / "other.txt"
    other.write_text("something else altogether " * 100)
    config = (run / "config.yaml").read_text()
    path = next(line for line in config.splitlines() if line.startswith("  path: "))

    def refused(*arguments: str) -> str:
        outcome = run_cli("reproduce", *arguments)
        assert (outcome.status, outcome.out) == (2, "")
        return outcome.err

    assert "steps must be 1 to 6, the first and last row of metrics.csv; got 7" in refused("run=run", "steps=7")
    assert "run: 'nowhere' is no run folder" in refused("run=nowhere")
    assert "run is missing; give run=PATH" in refused()
    (run / "config.yaml").write_text(config.replace(path, f"  path: {other}"))
    assert f"data.kind=text data.path={other} with this tokenizer is not what the run" in refused("run=run")
    record = json.loads((run / "run.json").read_text())
    record["sessions"][0]["environment"]["ranks"] = 2
    (run / "run.json").write_text(json.dumps(record))
    assert "was made by 2 processes" in refused("run=run")


def test_a_run_of_before_the_classes_moved(run_cli: Any, tiny: tuple[str, ...], tmp_path: Path) -> None:
    """Its ``config.yaml`` names them where they stood."""
    settings = ("optimizer=muon", "optimizer.lr=0.01", "callbacks=loss_watch", "trainer.max_steps=2")
    assert run_cli("train", *tiny, *settings, "callbacks=loss_watch", "run_dir=old").status == 0
    file = tmp_path / "old" / "config.yaml"
    named = file.read_text()
    before = named.replace("slm.training.optim.muon.", "slm.training.muon.")
    before = before.replace("slm.training.watch.", "slm.training.callbacks.")
    assert before.count("slm.training.muon.") == before.count("slm.training.callbacks.loss_watch.LossWatch") == 1
    file.write_text(before)
    assert run_cli("reproduce", "run=old").out.startswith("equal over 2 steps")
    said = run_cli("generate", "run=old", "checkpoint=last", "prompt=the", "generation.max_new_tokens=2")
    assert (said.status, said.err) == (0, "")
