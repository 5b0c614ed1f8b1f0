"""What lies in a run folder afterwards: plain types, whole files, the best weights."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from slm.errors import UserError
from slm.training.config import SchedulerConfig, TrainerConfig, trainer_config
from slm.training.optim.schedules import Schedule
from slm.training.run.checkpoint_io import CheckpointWriter, write_checkpoint
from slm.training.run.checkpoints import Checkpoints
from slm.training.run.folder import remove_leftovers

CONSTANT = Schedule.of(SchedulerConfig("constant"), 10)


def load(file: Path) -> dict[str, Any]:
    return torch.load(file, weights_only=True)


def model_weights(file: Path) -> dict[str, torch.Tensor]:
    return {name.removeprefix("model."): tensor for name, tensor in load(file)["state_dict"].items()}


def test_a_run_folder_is_whole(train_tiny: Callable[..., Path]) -> None:
    """Every checkpoint loads without unpickling code, the newest `keep` stay, nothing half-made is left."""
    run = train_tiny("run", "trainer.max_steps=9", "trainer.keep=2", "trainer.save_every=2")
    files = {file.name for file in (run / "checkpoints").iterdir()}
    assert files == {"last.ckpt", "best.ckpt", "step_00000006.ckpt", "step_00000008.ckpt"}
    for file in (run / "checkpoints").iterdir():
        assert not any("_orig_mod" in name for name in load(file)["state_dict"])
    assert load(run / "checkpoints" / "last.ckpt")["global_step"] == 9
    assert load(run / "checkpoints" / "step_00000006.ckpt")["global_step"] == 6
    names = {file.name for file in run.iterdir()}
    assert names == {"config.yaml", "run.json", "summary.json", "metrics.csv", "checkpoints", "model"}


def test_save_points_stay_and_are_exact(train_tiny: Callable[..., Path], run_cli: Callable[..., Any]) -> None:
    """Powers of two stay beside what is kept of the rest. A run that is stopped between two of them, or gone back in,
    leaves the same files; a branch and a name find them."""
    points = ("trainer.save_at=log2", "trainer.max_steps=9", "trainer.save_every=6", "trainer.val_every=4")
    whole = train_tiny("whole", *points)
    files = {file.name for file in (whole / "checkpoints").glob("[!b]*")}
    names = [f"at_{step:08d}.ckpt" for step in (1, 2, 4, 8)]
    assert files == {*names, "last.ckpt", "step_00000006.ckpt"}
    parts = train_tiny("parts", *points, "stop_after=3")
    (parts / "checkpoints/at_00000008.ckpt").touch()  # as if it had been at step 9 and was gone back in
    outcome = run_cli("train", "resume=parts", "stop_after=5")
    assert outcome.status == 0, outcome.err
    assert not (parts / "checkpoints/at_00000008.ckpt").exists()
    assert run_cli("train", "resume=parts").status == 0
    for name in names:
        one, other = (model_weights(run / "checkpoints" / name) for run in (whole, parts))
        assert all(torch.equal(tensor, other[key]) for key, tensor in one.items()), name
    branch = run_cli("train", "from_step=whole@2", "run_dir=branch", "trainer.save_at=[3]", "stop_after=4")
    assert branch.status == 0, branch.err
    assert [file.name for file in (whole.parent / "branch/checkpoints").glob("at_*")] == ["at_00000003.ckpt"]
    assert run_cli("generate", "run=whole", "checkpoint=at_00000002", "prompt=a").status == 0


@pytest.mark.parametrize("value", ["log3", [0, 2], [], 4, [1.5], [True]])
def test_save_points_that_are_none(value: object) -> None:
    with pytest.raises(UserError, match=r"trainer\.save_at: must be log2 \(steps .*\), a list of steps"):
        trainer_config(
            {"max_steps": 9, "batch_size": 1, "log_every": 1, "val_every": 1, "save_every": 1, "save_at": value}
        )


def test_best_is_the_best(train_tiny: Callable[..., Path], metrics_of: Callable[..., Any]) -> None:
    """A learning rate that ruins the model half way: best.ckpt and the bundle keep the weights of before."""
    run = train_tiny(
        "run", "scheduler=constant", "scheduler.warmup_steps=7", "optimizer.lr=3", "trainer.max_steps=12",
        "trainer.val_every=1", "trainer.grad_clip=0",
    )  # fmt: skip
    losses = {int(row["step"]): float(row["val/loss"]) for row in metrics_of(run)}
    best = min(losses, key=lambda step: losses[step])
    assert best < 12, "the learning rate was meant to be ruinous"
    checkpoint = run / "checkpoints" / "best.ckpt"
    assert load(checkpoint)["global_step"] == best
    bundle = load_file(run / "model" / "model.safetensors")
    assert bundle.keys() == model_weights(checkpoint).keys()
    assert all(torch.equal(bundle[name], tensor) for name, tensor in model_weights(checkpoint).items())
    last = model_weights(run / "checkpoints" / "last.ckpt")
    assert not torch.equal(bundle["token_embedding.weight"], last["token_embedding.weight"])


OWN = TrainerConfig(max_steps=100, batch_size=1, log_every=1, val_every=1, save_every=10, keep=0)


class _Saver:
    """As much of a Trainer as the callback asks of one."""

    is_global_zero, should_stop, global_step, max_steps = True, False, 0, 100
    optimizers: tuple[Any, ...] = ()

    class state:  # noqa: N801
        fn = "fit"

    class strategy:  # noqa: N801
        broadcast = staticmethod(lambda value: value)

    def __init__(self, writer: CheckpointWriter) -> None:
        self.writer = writer

    def save_checkpoint(self, file: Path) -> None:
        self.writer.save_checkpoint({"step": self.global_step}, file)


def test_a_loss_that_is_no_number_is_beaten_by_any(tmp_path: Path) -> None:
    """No number is smaller than nan, so that a nan at the first validation once stayed the best for ever."""
    written: list[Any] = []
    writer = CheckpointWriter()
    callback = Checkpoints(tmp_path, OWN, CONSTANT, writer, lambda weights, facts: written.append(facts["step"]))
    trainer: Any = _Saver(writer)
    module: Any = type("Module", (), {"model": torch.nn.Linear(1, 1), "val_metrics": {}})
    for step, loss in enumerate([float("nan"), 3.0, float("nan"), 2.0, 2.5]):
        trainer.global_step, module.val_metrics = step, {"loss": loss}
        callback.on_validation_end(trainer, module)
    assert written == [0, 1, 3]
    assert (callback.best_loss, callback.best_step) == (2.0, 3)
    assert load(tmp_path / "best.ckpt")["step"] == 3


def test_what_was_lost_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A better model that a full disk lost: the next one must beat what is there, and a step that is not saved is not
    taken for saved by the signal that asks for it."""
    writer = CheckpointWriter()
    callback = Checkpoints(tmp_path, OWN, CONSTANT, writer, lambda weights, facts: None)
    trainer: Any = _Saver(writer)
    module: Any = type("Module", (), {"model": torch.nn.Linear(1, 1), "val_metrics": {}})
    trainer.lightning_module = module

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for step, loss in enumerate([3.0, 1.0, 2.0]):
        trainer.global_step, module.val_metrics = step, {"loss": loss}
        with monkeypatch.context() as patch:
            if step == 1:
                patch.setattr(torch, "save", full)
            callback.on_validation_end(trainer, module)
        if step == 1:
            callback.save_now(trainer)
            assert load(tmp_path / "last.ckpt")["step"] == 1
            assert load(tmp_path / "best.ckpt")["step"] == 0
            assert callback.best_loss == 3.0
    assert load(tmp_path / "best.ckpt")["step"] == 2


def test_without_validation_the_last_weights_are_the_model(train_tiny: Callable[..., Path]) -> None:
    run = train_tiny("run", "trainer.limit_val_batches=0")
    bundle = load_file(run / "model" / "model.safetensors")
    last = model_weights(run / "checkpoints" / "last.ckpt")
    assert all(torch.equal(bundle[name], tensor) for name, tensor in last.items())


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fills up half way through: what was there stays, no partial file lies about."""
    file = tmp_path / "last.ckpt"
    write_checkpoint({"step": 1}, file)

    def full(content: Any, out: Any) -> None:
        out.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        write_checkpoint({"step": 2}, file)
    assert load(file) == {"step": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_progress_bar_can_be_left_out(train_tiny: Callable[..., Path]) -> None:
    """By Lightning's own switch, which it would refuse beside a callback that is one."""
    run = train_tiny("plain", "callbacks=progress", "trainer.enable_progress_bar=false", "trainer.max_steps=1")
    assert (run / "summary.json").is_file()


def test_what_a_killed_run_left_beside_its_files_goes(tmp_path: Path) -> None:
    """Whoever was writing: checkpoints and folders under hidden names, other files as `new_file` calls them."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / ".model.x1").mkdir()
    for name in ("checkpoints/.last.ckpt.x1", "answers.jsonl.7.unfinished", "run.json.7.unfinished"):
        (tmp_path / name).touch()
    (tmp_path / "run.json").touch()
    remove_leftovers(tmp_path)
    assert sorted(entry.name for entry in tmp_path.rglob("*")) == ["checkpoints", "run.json"]
