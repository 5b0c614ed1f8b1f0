"""A run in parts is the run in one go, to the last bit."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

SIXTY = (
    "trainer.max_steps=60",
    "trainer.batch_size=2",
    "trainer.global_batch_size=6",
    "trainer.val_every=7",
    "trainer.save_every=10",
    "trainer.keep=0",
    "model.params.dropout=0.1",
    "callbacks=default",
    "callbacks.sample_text.max_new_tokens=2",
    "callbacks.sample_text.prompt=a",
)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, invoke: Any, tiny: tuple[str, ...]) -> Callable[[int], Path]:
    """``straight(log_every)``: 60 steps in one go, made once."""
    made: dict[int, Path] = {}

    def run(log_every: int) -> Path:
        if log_every not in made:
            folder = tmp_path_factory.mktemp("straight")
            outcome = invoke(folder, "train", *tiny, *SIXTY, f"trainer.log_every={log_every}", "run_dir=run")
            assert outcome.status == 0, outcome.err
            made[log_every] = folder / "run"
        return made[log_every]

    return run


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def same_weights(one: Path, other: Path) -> bool:
    return all(torch.equal(tensor, weights(other)[name]) for name, tensor in weights(one).items())


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.nightly)])
def test_thirty_and_thirty_are_sixty(
    straight: Any, train_tiny: Any, run_cli: Any, metrics_of: Any, workers: int
) -> None:
    """Dropout, order of the data, accumulation, optimizer and schedule go on where they were, and the
    loader's workers change nothing: what they had fetched ahead of the interruption is fetched again."""
    expected = straight(1)
    run = train_tiny("run", *SIXTY, f"data.num_workers={workers}", "stop_after=30")
    assert [row["step"] for row in metrics_of(run)] == [str(step) for step in range(1, 31)]
    outcome = run_cli("train", "resume=run")
    assert outcome.status == 0, outcome.err
    assert metrics_of(run) == metrics_of(expected)
    assert (run / "samples.txt").read_text() == (expected / "samples.txt").read_text()
    assert same_weights(run, expected)


@pytest.mark.nightly
def test_from_a_checkpoint_in_the_middle(straight: Any, train_tiny: Any, run_cli: Any, metrics_of: Any) -> None:
    """Step 10 is a multiple of neither ``log_every`` nor ``val_every``: the sums that the next row of the
    table is made of are in the checkpoint, and rows of after it are made again, not doubled."""
    expected = straight(4)
    run = train_tiny("run", *SIXTY, "trainer.log_every=4", "stop_after=33")
    outcome = run_cli("train", "resume=run/checkpoints/step_00000010.ckpt")
    assert outcome.status == 0, outcome.err
    assert metrics_of(run) == metrics_of(expected)
    assert same_weights(run, expected)
    assert same_weights(run, straight(1)), "how often is logged must not change what is learnt"


def test_what_goes_is_told(train_tiny: Any, run_cli: Any) -> None:
    """Steps that a table holds and that are made again; a step that is of more windows than until now."""
    train_tiny("run", "trainer.max_steps=9", "trainer.save_every=3", "trainer.keep=0")
    outcome = run_cli("train", "resume=run/checkpoints/step_00000003.ckpt", "trainer.batch_size=8", "stop_after=4")
    said = "run/metrics.csv goes to step 9: 6 rows of after step 3 are dropped and made again"
    assert said in outcome.err.splitlines()
    said = "a step takes 8 windows from here on, 4 until now; trainer.global_batch_size=4 keeps that"
    assert said in outcome.err.splitlines()
    outcome = run_cli("train", "resume=run", "stop_after=5")
    assert "made again" not in outcome.err
    assert "a step takes" not in outcome.err


def test_auto_goes_on_or_starts(
    train_tiny: Any, run_cli: Any, tiny: tuple[str, ...], tmp_path: Path, metrics_of: Any
) -> None:
    """The same command line twice: first it starts the run, then it goes on with it, never a second time from zero."""
    command = ("train", *tiny, "run_dir=run", "resume=auto")
    assert run_cli(*command, "stop_after=2").status == 0
    outcome = run_cli(*command)
    assert "resumed at step 2" in outcome.err
    assert [row["step"] for row in metrics_of(tmp_path / "run")] == ["1", "2", "3", "4", "5", "6"]


def test_auto_finds_the_newest_run_of_the_same_settings(run_cli: Any, tiny: tuple[str, ...], tmp_path: Path) -> None:
    """The record holds settings as they were typed. It once held them as quoted for Hydra, so that a run
    with data.path was never found, nor could be resumed: there is no file ''words.txt''."""
    assert run_cli("train", *tiny, "stop_after=2").status == 0
    assert run_cli("train", *tiny, "seed=2", "stop_after=2", "run_dir=outputs/other").status == 0
    first = next(run for run in (tmp_path / "outputs").iterdir() if run.name != "other")
    for age, run in enumerate((tmp_path / "outputs").iterdir()):
        os.utime(run / "run.json", (age, age))  # a copied folder, a clock that jumped: what the run noted counts
    outcome = run_cli("train", *tiny, "resume=auto")
    assert outcome.status == 0, outcome.err
    assert f"run folder outputs/{first.name}, resumed at step 2" in outcome.err


@pytest.mark.nightly
def test_resumed_in_a_folder_of_its_own(train_tiny: Any, run_cli: Any, tmp_path: Path) -> None:
    """``run_dir`` beside ``resume=PATH`` leaves the old run as it is."""
    run = train_tiny("run", "stop_after=2")
    before = (run / "metrics.csv").read_text()
    outcome = run_cli("train", "resume=run", "run_dir=new")
    assert outcome.status == 0, outcome.err
    assert (run / "metrics.csv").read_text() == before
    assert (tmp_path / "new" / "model").is_dir()


@pytest.mark.nightly
def test_from_another_folder(
    invoke: Any, tiny: tuple[str, ...], tmp_path: Path, text_file: Path, metrics_of: Any
) -> None:
    """Settings are kept as they were typed, so a relative path once meant another file, or none, wherever the run was
    gone on with. Twice, and what a later folder holds under the same name is not what was meant."""
    here, there, elsewhere = (tmp_path / name for name in ("here", "there", "elsewhere"))
    for folder in (here, there, elsewhere):
        (folder / "conf" / "experiment").mkdir(parents=True)
    for part in (1, 2):
        (here / f"part {part}.txt").write_text(text_file.read_text()[part:])
        (there / f"part {part}.txt").write_text("another text " * 100)
    (here / "conf" / "experiment" / "slow.yaml").write_text("# @package _global_\noptimizer:\n  lr: 0.001\n")
    changes = ("data.path=['part 1.txt', part*2.txt]", "--config-dir=conf", "experiment=slow")
    arguments = [argument for argument in tiny if not argument.startswith(("data.path", "optimizer.lr"))]
    assert invoke(here, "train", *arguments, *changes, "run_dir=unbroken").status == 0
    assert invoke(here, "train", *arguments, *changes, "run_dir=run", "stop_after=2").status == 0
    for folder, stop in ((there, "4"), (elsewhere, "null")):
        refused = invoke(folder, "train", "resume=../here/run", f"stop_after={stop}")
        assert refused.status == 2
        assert re.search(r"its setting --config-dir=/\S+/here/conf could run code", refused.err), refused.err
        typed = "--config-dir=../here/conf"
        outcome = invoke(folder, "train", "resume=../here/run", f"stop_after={stop}", typed)
        assert outcome.status == 0, outcome.err
    assert metrics_of(here / "run") == metrics_of(here / "unbroken")
    assert invoke(there, "evaluate", "run=../here/run").status == 0
    outcome = invoke(there, "reproduce", "run=../here/unbroken")
    assert outcome.out.startswith("equal over 6 steps"), outcome.err


@pytest.mark.nightly
def test_from_a_checkpoint_by_itself(train_tiny: Any, run_cli: Any, tiny: tuple[str, ...], tmp_path: Path) -> None:
    """One that was copied out of its run goes on in a new run folder, with the settings that are typed."""
    run = train_tiny("run", "stop_after=2")
    (run / "checkpoints" / "last.ckpt").rename(tmp_path / "copied.ckpt")
    outcome = run_cli("train", *tiny, "resume=copied.ckpt")
    assert outcome.status == 0, outcome.err
    assert "resumed at step 2" in outcome.err
    assert Path(outcome.out).parent.name == "outputs"


def test_a_run_is_not_written_over(train_tiny: Any, run_cli: Any, tiny: tuple[str, ...]) -> None:
    """The same run_dir twice, once forgetting to resume: hours of training must not be lost to that."""
    run = train_tiny("run", "stop_after=2")
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    outcome = run_cli("train", *tiny, "run_dir=run")
    assert outcome.status == 2
    assert outcome.err == (
        "slm-train: run_dir: 'run' holds a run already; go on with it (resume=run) or name another folder\n"
    )
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


def test_what_cannot_be_resumed(train_tiny: Any, run_cli: Any, tiny: tuple[str, ...], tmp_path: Path) -> None:
    """Other data, a finished run, a damaged checkpoint, a folder without one: one line, status 2, nothing changed."""
    run = train_tiny("run", "stop_after=2")
    other_text = tmp_path / "other.txt"
    other_text.write_text("something else altogether " * 100)
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}

    def refused(*arguments: str) -> str:
        outcome = run_cli("train", *arguments)
        assert outcome.status == 2, outcome.err
        return outcome.err.splitlines()[-1]

    assert "the data is not what the checkpoint was trained on" in refused("resume=run", f"data.path={other_text}")
    assert "seed 1 -> 5" in refused("resume=run", "seed=5")
    assert "is at step 2 already and the run ends at 2" in refused("resume=run", "stop_after=2")
    assert "run/checkpoints/missing.ckpt' does not exist" in refused("resume=run/checkpoints/missing.ckpt")
    assert "token_embedding.weight (320, 32) -> (320, 48)" in refused("resume=run", "model.modules.transformer.dim=48")
    assert "of another optimizer" in refused("resume=run", "optimizer=sgd")
    assert "other frozen modules" in refused("resume=run", "model.modules.position_embedding.freeze=true")
    assert "holds no checkpoint" in refused(f"resume={tmp_path}")
    (tmp_path / "damaged.ckpt").write_bytes(before[run / "checkpoints" / "last.ckpt"][:-100])
    line = refused(*tiny, "resume=damaged.ckpt", "run_dir=fresh")
    assert "'damaged.ckpt' is not a checkpoint that can be read" in line
    assert not (tmp_path / "fresh").exists()
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


@pytest.mark.nightly
def test_a_new_timeline_keeps_its_own_checkpoints(train_tiny: Any, run_cli: Any) -> None:
    """Gone back to step 4 of 20, with two files kept: the old run's later ones must make room, not the new ones."""
    run = train_tiny("run", "trainer.max_steps=20", "trainer.save_every=4", "trainer.keep=0")
    (run / "checkpoints" / "last.ckpt").unlink()
    outcome = run_cli("train", "resume=run/checkpoints/step_00000004.ckpt", "trainer.keep=2", "stop_after=12", "seed=1")
    assert outcome.status == 0, outcome.err
    assert {"step_00000008.ckpt", "step_00000012.ckpt"} <= {file.name for file in (run / "checkpoints").iterdir()}


def test_ctrl_c_says_how_to_go_on(run_cli: Any, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: Any) -> None:
    """Status 130 and the command to type; Lightning alone would leave with status 1 and not a word."""
    (tmp_path / "impatient.py").write_text(
        "import pytorch_lightning as pl\n"
        "class Impatient(pl.Callback):\n"
        "    def on_train_batch_end(self, trainer, *args):\n"
        "        if trainer.global_step == 5: raise KeyboardInterrupt\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    handler = signal.getsignal(signal.SIGINT)
    try:
        outcome = run_cli("train", *tiny, "run_dir=run", "+callbacks.impatient._target_=impatient.Impatient")
    finally:
        signal.signal(signal.SIGINT, handler)
    assert outcome.status == 130
    assert outcome.err.splitlines()[-1] == "slm-train: interrupted; go on from step 4: slm-train resume=run"
    assert "resumed at step 4" in run_cli("train", "resume=run", "~callbacks.impatient").err


def test_settings_of_the_new_command_hold(train_tiny: Any, run_cli: Any, metrics_of: Any) -> None:
    """The checkpoint's optimizer state brings its own lr along; it must not win over what is typed now."""
    run = train_tiny("run", "scheduler=constant", "scheduler.warmup_steps=0", "optimizer.lr=0.01", "stop_after=2")
    assert run_cli("train", "resume=run", "optimizer.lr=0.001").status == 0
    assert [float(row["train/lr"]) for row in metrics_of(run)] == [0.01] * 2 + [0.001] * 4


@pytest.mark.nightly
def test_another_batch_keeps_the_rhythm(train_tiny: Any, run_cli: Any, metrics_of: Any) -> None:
    """As other ranks would: Lightning counts micro-batches, of which a step then takes another number."""
    changes = ("trainer.max_steps=12", "trainer.global_batch_size=12", "trainer.save_every=3", "trainer.keep=0")
    run = train_tiny("run", *changes, "trainer.batch_size=2", "stop_after=4", "trainer.val_every=5")
    expected = train_tiny("expected", *changes, "trainer.batch_size=2", "trainer.val_every=5")
    assert run_cli("train", "resume=run", "trainer.batch_size=4").status == 0
    assert [row["step"] for row in metrics_of(run) if row["val/loss"]] == ["5", "10", "12"]
    assert {file.name for file in (run / "checkpoints").iterdir()} >= {
        f"step_{step:08d}.ckpt" for step in (3, 6, 9, 12)
    }
    for row, one in zip(metrics_of(run), metrics_of(expected), strict=True):
        assert float(row["train/loss"]) == pytest.approx(float(one["train/loss"]), abs=1e-5)
        assert row["train/tokens"] == one["train/tokens"]


def test_a_run_of_before_parts_were_known_by_name_goes_on(
    run_cli: Any, tiny: tuple[str, ...], tmp_path: Path, metrics_of: Any
) -> None:
    """Names in its folder were no matter then: it had trained on the validation file, and goes on with it."""
    (tmp_path / "d").mkdir()
    for name, words in (("train", "the cat sat on the mat " * 60), ("valid", "a dog " * 20), ("more", "from the sea ")):
        (tmp_path / f"d/{name}.txt").write_text(words)
    before = [*(setting for setting in tiny if not setting.startswith("data.path")), "data.path=d", "seed=1"]
    whole = run_cli("train", "data.split_by_name=false", *before, "run_dir=whole")
    assert whole.status == 0, whole.err
    assert run_cli("train", "data.split_by_name=false", *before, "run_dir=cut", "stop_after=3").status == 0
    for file, gone in (("run.json", '"data.split_by_name=false"'), ("config.yaml", "split_by_name: false")):
        path = tmp_path / "cut" / file
        lines = path.read_text().splitlines(keepends=True)
        assert any(gone in line for line in lines)
        path.write_text("".join(line for line in lines if gone not in line))
    outcome = run_cli("train", "resume=cut")
    assert outcome.status == 0, outcome.err
    assert metrics_of(tmp_path / "cut") == metrics_of(tmp_path / "whole")
    assert "by name" in run_cli("train", *before, "run_dir=named").err
