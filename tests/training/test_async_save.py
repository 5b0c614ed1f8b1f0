"""A save in the background is of the state of its step, and says when it failed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from slm.training.run import checkpoint_io
from slm.training.run.checkpoint_files import dropped
from slm.training.run.checkpoint_io import CheckpointWriter, HostCopy, read_checkpoint, write_checkpoint


def test_both_ways_write_the_same_files(train_tiny: Callable[..., Path]) -> None:
    """Every checkpoint and the bundle, byte for byte: the copy leaves nothing out and changes nothing."""
    changes = ("model.params.dropout=0.1", "trainer.keep=0", "trainer.max_steps=8")
    waiting, background = (train_tiny(f"run_{way}", f"trainer.async_save={way}", *changes) for way in ("false", "true"))
    names = {str(file.relative_to(waiting)) for part in ("checkpoints", "model") for file in (waiting / part).iterdir()}
    assert {"checkpoints/best.ckpt", "checkpoints/step_00000002.ckpt", "model/model.safetensors"} <= names
    for name in names:
        assert (waiting / name).read_bytes() == (background / name).read_bytes(), name


def test_what_is_written_is_the_state_of_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training goes on, and changes tensors, numbers and lists in their place, before a byte is written."""
    go_on = threading.Event()

    def late(*arguments: Any) -> None:
        assert go_on.wait(10)
        write_checkpoint(*arguments)

    monkeypatch.setattr(checkpoint_io, "write_checkpoint", late)
    writer, weight = CheckpointWriter(in_background=True), torch.zeros(1000)
    state = {"state_dict": {"w": weight}, "step": torch.tensor(3.0), "progress": {"seen": [1, 2]}}
    writer.save_checkpoint(state, tmp_path / "a.ckpt")
    weight.add_(1), state["step"].add_(1), state["progress"]["seen"].append(3)  # type: ignore[attr-defined, index, operator, union-attr]
    go_on.set()
    assert writer.wait() is None
    read = read_checkpoint(tmp_path / "a.ckpt")
    assert read["state_dict"]["w"].sum() == 0
    assert (read["step"], read["progress"]) == (3, {"seen": [1, 2]})
    writer.teardown()


def test_a_copy_uses_its_memory_again_and_keeps_what_is_one() -> None:
    """Gigabytes must not be allocated at each save; a weight that two names share is written once."""
    copies, shared = HostCopy(), torch.ones(5)
    first = copies.take({"a": shared, "b": shared, "c": torch.zeros(2, 3).t()})
    assert first["a"] is first["b"]
    assert first["c"].stride() == (1, 3)
    copies.release()
    second = copies.take({"a": shared + 1, "b": shared, "c": torch.ones(2, 3).t()})
    assert second["a"] is first["a"]
    assert second["b"] is not second["a"]
    assert (second["a"].tolist(), second["b"].tolist()) == ([2.0] * 5, [1.0] * 5)


def test_the_end_of_training_waits_for_the_last_save(
    train_tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slow disks: saves queue behind one another, never overtake, and the run ends when all is there."""
    order: list[int] = []

    def slow(checkpoint: dict[str, Any], *arguments: Any) -> None:
        threading.Event().wait(0.2)
        write_checkpoint(checkpoint, *arguments)
        order.append(checkpoint["global_step"])

    monkeypatch.setattr(checkpoint_io, "write_checkpoint", slow)
    run = train_tiny("run", "trainer.max_steps=5", "trainer.save_every=1", "trainer.val_every=100")
    assert order == [1, 2, 3, 4, 5]
    assert read_checkpoint(run / "checkpoints" / "last.ckpt")["global_step"] == 5


def test_any_other_error_of_the_thread_ends_the_run(tmp_path: Path) -> None:
    """Only disks fail and mend; what cannot be pickled is a mistake in the code, and is not passed over."""
    writer = CheckpointWriter(in_background=True)
    writer.save_checkpoint({"state_dict": {}, "lock": _Unpicklable()}, tmp_path / "a.ckpt")
    with pytest.raises(TypeError, match="not to be pickled"):
        writer.wait()
    assert list(tmp_path.iterdir()) == []
    writer.teardown()


class _Unpicklable:
    def __reduce__(self) -> Any:
        raise TypeError("not to be pickled")

    def __deepcopy__(self, memo: Any) -> _Unpicklable:
        return self


@pytest.mark.parametrize(
    ("steps", "saved", "keep", "gone"),
    [
        ([2, 4, 6, 8], 8, 2, [2, 4]),
        ([2, 4, 6, 8], 8, 0, []),
        ([2, 4, 6, 8], 8, 1, [2, 4]),  # the one before the newest stays, whatever is asked
        ([2, 4, 20, 24], 4, 2, [20, 24]),  # gone back from step 24: the new run's own stay
        ([2], 2, 1, []),
    ],
)
def test_which_files_go(steps: list[int], saved: int, keep: int, gone: list[int]) -> None:
    assert dropped(steps, saved, keep) == gone


@pytest.mark.nightly
def test_one_a_period_stays_for_good(train_tiny: Callable[..., Path]) -> None:
    """The first of a run, and none more within the hour; with a period of nothing at all, every one."""
    saves = ("trainer.max_steps=6", "trainer.save_every=1", "trainer.val_every=100")
    one = train_tiny("one", *saves, "trainer.keep_every_hours=1")
    assert [file.name for file in one.rglob("kept_*")] == ["kept_00000001.ckpt"]
    assert read_checkpoint(one / "checkpoints" / "kept_00000001.ckpt")["global_step"] == 1
    every = train_tiny("every", *saves, "trainer.keep_every_hours=1e-9")
    assert len(list(every.rglob("kept_*"))) == 6
    assert len(list(every.rglob("step_*"))) == 2
