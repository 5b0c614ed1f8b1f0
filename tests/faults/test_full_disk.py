"""Disks that are full or fail during a save: said, the last good checkpoint left alone, the next save tried."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from slm.training.run import checkpoint_io
from slm.training.run.checkpoint_files import checkpoints_of, fault_of
from slm.training.run.checkpoint_io import read_checkpoint

SAVES = ("trainer.max_steps=8", "trainer.save_every=2", "trainer.val_every=100", "trainer.keep=0")
MODES = ("trainer.async_save=true", "trainer.async_save=false")


class Disk:
    """Fails, from the `first` to the `last` save, in one of the calls that a save makes.

    Args:
        call: ``write``, ``fsync`` or ``replace``.
        number: of the error.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, call: str, number: int) -> None:
        self.first, self.last, self.saves = 0, 0, 0
        begin = checkpoint_io.Disk.__init__
        whole = {"write": None, "fsync": os.fsync, "replace": os.replace}[call]

        def counting(writer: checkpoint_io.Disk, out: Any) -> None:
            self.saves += 1
            if call == "write" and self.first <= self.saves <= self.last:
                out = _Full(out, number)
            begin(writer, out)

        def failing(*arguments: Any) -> Any:
            names = (str(arguments[0]), os.readlink(f"/proc/self/fd/{arguments[0]}") if call == "fsync" else "")
            if any("/last.ckpt." in name for name in names) and self.first <= self.saves <= self.last:
                raise OSError(number, os.strerror(number))
            return whole(*arguments)  # type: ignore[operator]

        monkeypatch.setattr(checkpoint_io.Disk, "__init__", counting)
        if call != "write":
            monkeypatch.setattr(os, call, failing)


class _Full:
    """A file that takes 10,000 bytes and no more."""

    def __init__(self, out: Any, number: int) -> None:
        self.out, self.number, self.left = out, number, 10_000

    def write(self, data: Any) -> int:
        if self.left <= 0:
            raise OSError(self.number, os.strerror(self.number))
        written: int = self.out.write(data[: self.left])
        self.left -= written
        return written


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory, invoke: Any, tiny: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """The weights that the run ends with on a disk that never fails."""
    folder = tmp_path_factory.mktemp("untouched")
    assert invoke(folder, "train", *tiny, *SAVES, "run_dir=run").status == 0
    return read_checkpoint(folder / "run" / "checkpoints" / "last.ckpt")["state_dict"]


@pytest.mark.nightly
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_save_that_fails_is_said_and_the_next_one_works(
    run_cli: Any, tiny: Any, tmp_path: Path, untouched: Any, monkeypatch: Any, call: str, number: int
) -> None:
    """Training goes on, and ends as if nothing had been; what was there before the failure is not touched by it."""
    disk = Disk(monkeypatch, call, number)
    disk.first = disk.last = 2  # the save of step 4
    mode = MODES[number == errno.EIO]
    outcome = run_cli("train", *tiny, *SAVES, "run_dir=run", mode)
    assert outcome.status == 0, outcome.err
    (line,) = (line for line in outcome.err.splitlines() if "not saved" in line)
    assert line.startswith(f"the checkpoint is not saved: {os.strerror(number)}")
    assert "'last.ckpt' of before is untouched; the next save tries again" in line
    assert ("MB needed" in line and "MB free" in line) == (number == errno.ENOSPC)
    files = {file.name for file in (tmp_path / "run" / "checkpoints").iterdir()}
    # a name of the failed save may be there, if all but the last move went well: it is whole then
    assert files - {"step_00000004.ckpt"} == {"last.ckpt", "best.ckpt", *(f"step_0000000{n}.ckpt" for n in (2, 6, 8))}
    assert all(fault_of(file) is None for file in checkpoints_of(tmp_path / "run"))
    weights = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["state_dict"]
    assert all(torch.equal(weights[name], untouched[name]) for name in untouched)


def test_the_end_that_cannot_be_saved_is_an_error(
    run_cli: Any, tiny: Any, tmp_path: Path, untouched: Any, monkeypatch: Any
) -> None:
    """All else is done and written first; the line says what is left, and going on from there ends as it should."""
    with monkeypatch.context() as patch:
        disk = Disk(patch, "write", errno.ENOSPC)
        disk.first, disk.last = 3, 99
        outcome = run_cli("train", *tiny, *SAVES, "run_dir=run")
    assert outcome.status == 2
    assert outcome.err.splitlines()[-1].startswith("slm-train: the end of the run is not saved (")
    assert "make room and go on from 'run/checkpoints/last.ckpt' (resume=run)" in outcome.err.splitlines()[-1]
    assert (tmp_path / "run" / "summary.json").is_file()
    assert "done: step 8 of 8" in outcome.err
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 4
    outcome = run_cli("train", "resume=run")
    assert outcome.status == 0, outcome.err
    weights = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["state_dict"]
    assert all(torch.equal(weights[name], untouched[name]) for name in untouched)


def test_a_best_that_was_not_saved_is_not_the_best(run_cli: Any, tiny: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """best.ckpt and the bundle are of one step, and the memory of it too: a later model must beat what is on the disk,
    not what was lost. The checkpoint itself is saved all the same when only the bundle fails."""
    bundle, failures = __import__("slm.weights.bundle", fromlist=["save_file"]), iter([False, True, False, False])
    save_file = bundle.save_file

    def failing(*arguments: Any) -> None:
        if next(failures):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model.safetensors")
        save_file(*arguments)

    monkeypatch.setattr(bundle, "save_file", failing)
    steps = ("trainer.max_steps=4", "trainer.save_every=100", "trainer.val_every=2", "optimizer.lr=1e-4")
    outcome = run_cli("train", *tiny, *steps, "run_dir=run")
    assert outcome.status == 0, outcome.err
    assert "the model bundle is not written: No space left on device" in outcome.err
    assert next(failures) is False, "the last save was to be tried once more, with the bundle"
    best = read_checkpoint(tmp_path / "run" / "checkpoints" / "best.ckpt")
    assert best["global_step"] == 4
    assert "at step 4)" in outcome.err


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """``run/checkpoints`` on a file system of its own of 2 MB."""
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.name != "posix" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small tmpfs (root on Linux)")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("mode", MODES)
def test_a_disk_that_is_really_full(
    small_disk: Path, run_cli: Any, tiny: Any, tmp_path: Path, untouched: Any, monkeypatch: Any, mode: str
) -> None:
    """Full from step 3 to step 5, as by another program's doing."""
    (tmp_path / "greedy.py").write_text(
        "import os\n"
        "import pytorch_lightning as pl\n"
        "class Greedy(pl.Callback):\n"
        "    def on_train_batch_start(self, trainer, *args):\n"
        "        file = os.path.join(trainer.default_root_dir, 'checkpoints', 'filler')\n"
        "        if trainer.global_step in (3, 5):\n"
        "            trainer.strategy.checkpoint_io.teardown()  # the save under way is done\n"
        "        if trainer.global_step == 3:\n"
        "            with open(file, 'wb', buffering=0) as out:\n"
        "                try:\n"
        "                    for _ in range(1000): out.write(bytes(4096))\n"
        "                except OSError: pass\n"
        "        if trainer.global_step == 5: os.unlink(file)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    outcome = run_cli("train", *tiny, *SAVES, "run_dir=run", mode, "+callbacks.greedy._target_=greedy.Greedy")
    assert outcome.status == 0, outcome.err
    (line,) = (line for line in outcome.err.splitlines() if "not saved" in line)
    assert "No space left on device" in line
    assert {file.name for file in small_disk.iterdir()} == {
        "last.ckpt", "best.ckpt", "step_00000002.ckpt", "step_00000006.ckpt", "step_00000008.ckpt",
    }  # fmt: skip
    weights = read_checkpoint(small_disk / "last.ckpt")["state_dict"]
    assert all(torch.equal(weights[name], untouched[name]) for name in untouched)


def test_what_a_killed_save_left_goes(train_tiny: Callable[..., Path], run_cli: Any) -> None:
    """Gigabytes under hidden names that nobody would ever look at again."""
    run = train_tiny("run", "stop_after=2")
    (run / "checkpoints" / ".last.ckpt.abc").write_bytes(b"half")
    (run / ".model.abc").mkdir()
    assert run_cli("train", "resume=run").status == 0
    assert not list(run.rglob(".*"))
