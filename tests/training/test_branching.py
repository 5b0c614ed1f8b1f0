"""A run that begins from a checkpoint of another: what goes on, what begins anew and is said, what both note."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

PARENT = ("trainer.max_steps=6", "trainer.val_every=6", "trainer.save_every=2", "trainer.keep=0", "scheduler=constant")


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory, invoke: Any, tiny: tuple[str, ...]) -> Path:
    """A folder that holds the run ``parent``, of six steps."""
    folder = tmp_path_factory.mktemp("parents")
    outcome = invoke(folder, "train", *tiny, *PARENT, "run_dir=parent")
    assert outcome.status == 0, outcome.err
    return folder


def checkpoint(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)


def test_with_nothing_changed_it_is_the_same_run(parents: Path, invoke: Any, metrics_of: Any) -> None:
    """Weights, moments, order of the data, random states and log rows go on; and both folders say so."""
    outcome = invoke(parents, "train", "from_step=parent@4", "run_dir=same")
    assert outcome.status == 0, outcome.err
    assert "run folder same, begun from step 4 of parent" in outcome.err
    assert metrics_of(parents / "same") == metrics_of(parents / "parent")[4:]
    one, other = (checkpoint(parents / name) for name in ("same", "parent"))
    assert all(torch.equal(one["state_dict"][name], tensor) for name, tensor in other["state_dict"].items())
    record = json.loads((parents / "same/run.json").read_text())
    expected = {"run": str(parents / "parent"), "checkpoint": "step_00000004.ckpt", "step": 4, "anew": []}
    assert record["parent"] == expected
    noted = [json.loads(line) for line in (parents / "parent/branches.jsonl").read_text().splitlines()]
    assert [(line["run"], line["step"]) for line in noted if line["run"].endswith("same")] == [
        (str(parents / "same"), 4)
    ]
    assert invoke(parents, "reproduce", "run=same").out.startswith("equal over 6 steps")


def test_a_branch_goes_on_by_itself(parents: Path, invoke: Any, metrics_of: Any) -> None:
    """Its own settings hold when it is resumed, and it knows where it comes from."""
    command = ("train", "from_step=parent@2", "optimizer.lr=0.0005", "run_dir=own", "resume=auto")
    assert invoke(parents, *command, "stop_after=3").status == 0
    outcome = invoke(parents, *command)
    assert outcome.status == 0, outcome.err
    assert "resumed at step 3" in outcome.err
    rows = metrics_of(parents / "own")
    assert [row["step"] for row in rows] == ["3", "4", "5", "6"]
    assert float(rows[-1]["train/lr"]) == 0.0005
    assert json.loads((parents / "own/run.json").read_text())["parent"]["step"] == 2
    lines = (parents / "parent/branches.jsonl").read_text().splitlines()
    assert sum("/own" in line for line in lines) == 1


@pytest.mark.parametrize(
    ("changes", "said", "anew"),
    [
        (("optimizer=muon",), "the optimizer, or what it trains, is another", ["optimizer"]),
        (("seed=5",), "the data, its windows or its order are others", ["data"]),
        pytest.param(
            ("data.seq_len=8", "optimizer=sgd", "trainer.batch_size=2", "scheduler=linear"),
            "the data, its windows or its order are others",
            ["data", "optimizer"],
            marks=pytest.mark.nightly,
        ),
    ],
)
def test_what_begins_anew_is_said(
    parents: Path, invoke: Any, metrics_of: Any, changes: tuple[str, ...], said: str, anew: list[str]
) -> None:
    name = changes[0].replace("=", "_")
    outcome = invoke(parents, "train", "from_step=parent@4", f"run_dir={name}", *changes)
    assert outcome.status == 0, outcome.err
    assert said in outcome.err
    assert json.loads((parents / name / "run.json").read_text())["parent"]["anew"] == anew
    assert [row["step"] for row in metrics_of(parents / name)] == ["5", "6"]
    data = next(value for key, value in checkpoint(parents / name).items() if key.endswith("DataModule"))
    taken = 2 if changes[-1] == "scheduler=linear" else 4
    assert data["position"] == 2 * taken + (0 if "data" in anew else 4 * 4)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("from_step=parent@3", "from_step: 'parent' has no whole checkpoint of step 3; it has 2, 4, 6 (trainer.keep=0"),
        (
            "from_step=nowhere@3",
            "from_step: 'nowhere' does not exist; give RUN@STEP, a run folder or a checkpoint file",
        ),
        ("from_step=parent", "is at step 6 already and the run ends at 6; raise trainer.max_steps"),
        ("from_step=parent/checkpoints/last.ckpt@6", "is one checkpoint; leave @6 out, or name its run folder"),
    ],
)
def test_what_cannot_be_branched(parents: Path, invoke: Any, setting: str, said: str) -> None:
    outcome = invoke(parents, "train", setting, "run_dir=refused")
    assert (outcome.status, said in outcome.err) == (2, True), outcome.err
    assert not (parents / "refused").exists()


def test_two_beginnings(parents: Path, invoke: Any) -> None:
    outcome = invoke(parents, "train", "from_step=parent@4", "resume=parent")
    assert outcome.err == (
        "slm-train: resume goes on with a run, from_step begins a new one; give either (resume=parent)\n"
    )
    outcome = invoke(parents, "train", "from_step=parent@4", "run_dir=parent")
    assert "run_dir: 'parent' holds a run already" in outcome.err
    outcome = invoke(parents, "train", "from_step=parent@4", "run_dir=other", "model.modules.transformer.dim=48")
    assert "from_step: the model is not the checkpoint's" in outcome.err
