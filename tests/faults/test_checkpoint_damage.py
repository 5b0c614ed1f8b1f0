"""Damaged checkpoints: found before a tensor is used, named, and the one before gone on from."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from slm.errors import UserError
from slm.training.run.checkpoint_files import fault_of
from slm.training.run.checkpoint_io import read_checkpoint, write_checkpoint
from slm.training.run.resume import newest_whole

LONG = os.environ.get("SLM_FAULTS") == "long"
DAMAGES = 200
THROUGH_THE_COMMAND = 20 if LONG else 3


@pytest.fixture(scope="module")
def damaged_run(tmp_path_factory: pytest.TempPathFactory, invoke: Any, tiny: tuple[str, ...]) -> Path:
    """A run stopped at step 6: last, best and step 6 are one file on disk, step 4 another."""
    folder = tmp_path_factory.mktemp("damaged")
    arguments = ("trainer.max_steps=8", "stop_after=6", "trainer.val_every=2", "optimizer.lr=1e-4", "run_dir=run")
    outcome = invoke(folder, "train", *tiny, *arguments)
    assert outcome.status == 0, outcome.err
    checkpoints = folder / "run" / "checkpoints"
    names = ("last.ckpt", "best.ckpt", "step_00000006.ckpt")
    assert len({(checkpoints / name).stat().st_ino for name in names}) == 1, "the test is of damage that meets all"
    return folder / "run"


@pytest.fixture
def last(damaged_run: Path) -> Iterator[Path]:
    """The newest checkpoint, to be damaged in its place under all its names; whole again afterwards."""
    file = damaged_run / "checkpoints" / "last.ckpt"
    before = file.read_bytes()
    yield file
    file.write_bytes(before)


def damage(whole: bytes, draw: random.Random) -> bytes:
    """One byte made another, or the end cut off."""
    place = draw.randrange(len(whole))
    if draw.random() < 0.3:
        return whole[:place]
    return whole[:place] + bytes([whole[place] ^ draw.randrange(1, 256)]) + whole[place + 1 :]


def leaves(value: Any) -> Any:
    """Nested plain types that can be compared: tensors as what they hold, to the bit."""
    if isinstance(value, dict):
        return {key: leaves(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [leaves(inner) for inner in value]
    return (value.dtype, value.shape, value.numpy().tobytes()) if isinstance(value, torch.Tensor) else value


def read_or_refused(file: Path) -> Any:
    """What is read of a file, or None where it is refused."""
    try:
        return leaves(read_checkpoint(file))
    except UserError as error:
        refusal = str(error)
    assert f"{file.name}' is not a checkpoint that can be read" in refusal
    return None


@pytest.mark.nightly
def test_two_hundred_damages_are_found(damaged_run: Path, last: Path) -> None:
    """Or change nothing that is read: torch's reader alone, which looks at no CRC, takes most of these for whole."""
    whole, draw = last.read_bytes(), random.Random(7)
    content = read_or_refused(last)
    before = read_or_refused(damaged_run / "checkpoints" / "step_00000004.ckpt")
    found = harmless = 0
    for _ in range(DAMAGES):
        last.write_bytes(damage(whole, draw))
        read, taken = read_or_refused(last), newest_whole(damaged_run)
        assert taken is not None
        if read is None and taken.name == "step_00000004.ckpt":
            found += read_or_refused(taken) == before
        else:
            harmless += read == content
    print(f"{found} of {DAMAGES} damages found, the checkpoint before taken; {harmless} of bytes that nobody reads")
    assert found + harmless == DAMAGES
    assert found > 0.7 * DAMAGES


@pytest.mark.nightly
@pytest.mark.parametrize("flipped", [1, 0x80])
def test_any_byte_of_a_small_file(tmp_path: Path, flipped: int) -> None:
    """Of a tensor or a record: found, by torch's reader at the latest, or nothing that is read is changed. And no cut
    goes unseen, wherever it is."""
    file = tmp_path / "a.ckpt"
    write_checkpoint({"state_dict": {"w": torch.arange(30.0)}, "step": 3}, file)
    whole, content = file.read_bytes(), read_or_refused(file)
    tensor = whole.index(torch.arange(30.0).numpy().tobytes())
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ flipped]) + whole[place + 1 :])
        assert read_or_refused(file) in (None, content), place
        assert fault_of(file) is not None or not tensor <= place < tensor + 120
        file.write_bytes(whole[:place])
        assert fault_of(file) is not None, place


def test_files_with_a_checksum_of_before_are_read(tmp_path: Path) -> None:
    """Versions before this one put a SHA-256 of the file into the archive's comment."""
    file = tmp_path / "a.ckpt"
    write_checkpoint({"state_dict": {"w": torch.arange(1000.0)}}, file)
    whole = file.read_bytes()[:-2] + (75).to_bytes(2, "little") + b"slm sha256 "
    sealed = whole + hashlib.sha256(whole).hexdigest().encode()
    file.write_bytes(sealed)
    assert fault_of(file) is None
    assert torch.equal(read_checkpoint(file)["state_dict"]["w"], torch.arange(1000.0))
    place = sealed.index(torch.arange(1000.0).numpy().tobytes()) + 77
    file.write_bytes(sealed[:place] + bytes([sealed[place] ^ 4]) + sealed[place + 1 :])
    assert "CRC-32" in str(fault_of(file))


def test_torch_reads_it(tmp_path: Path) -> None:
    """A checkpoint stays a plain file of torch, for whoever has no slm."""
    file, content = tmp_path / "a.ckpt", {"state_dict": {"w": torch.randn(70, 3)}, "tiny": [torch.tensor(1), "x"]}
    write_checkpoint(content, file)
    for mapped in (False, True):
        read = torch.load(file, weights_only=True, mmap=mapped)
        assert torch.equal(read["state_dict"]["w"], content["state_dict"]["w"])  # type: ignore[index, call-overload]
    assert fault_of(file) is None


def test_the_command_names_it_and_goes_on_from_the_one_before(
    damaged_run: Path, last: Path, invoke: Any, metrics_of: Callable[..., Any], tmp_path: Path
) -> None:
    """Both ways to say resume; the run that goes on from step 4 is the run that never was damaged."""
    whole, draw = last.read_bytes(), random.Random(3)
    folder = damaged_run.parent
    outcome = invoke(folder, "train", "resume=run", "run_dir=untouched")
    assert outcome.status == 0, outcome.err
    expected = read_checkpoint(folder / "untouched" / "checkpoints" / "last.ckpt")["state_dict"]
    for number in range(THROUGH_THE_COMMAND):
        last.write_bytes(damage(whole, draw))
        while fault_of(last) is None:  # where nobody reads, as the test above counts
            last.write_bytes(damage(whole, draw))
        outcome = invoke(folder, "train", "resume=run", f"run_dir=mended_{number}")
        assert outcome.status == 0, outcome.err
        assert "'run/checkpoints/last.ckpt' is damaged: it" in outcome.err
        assert "going on from 'run/checkpoints/step_00000004.ckpt', the newest checkpoint that is whole" in outcome.err
        assert "resumed at step 4" in outcome.err
        weights = read_checkpoint(folder / f"mended_{number}" / "checkpoints" / "last.ckpt")["state_dict"]
        assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_auto_never_starts_anew_over_damage(last: Path, invoke: Any, tiny: tuple[str, ...], damaged_run: Path) -> None:
    """One left that is whole: taken. None: refused, for a start from zero would write over what could be rescued."""
    folder, checkpoints = damaged_run.parent, damaged_run / "checkpoints"
    older = checkpoints / "step_00000004.ckpt"
    kept, whole = older.read_bytes(), last.read_bytes()
    last.write_bytes(b"")
    try:
        outcome = invoke(folder, "train", "resume=run/checkpoints/last.ckpt")
        assert outcome.status == 2
        assert outcome.err.splitlines() == [
            "slm-train: resume: 'run/checkpoints/last.ckpt' is not a checkpoint that can be read (it is empty); "
            "resume=run/checkpoints/step_00000004.ckpt is whole"
        ]
        older.write_bytes(kept[:1000])
        outcome = invoke(folder, "train", *tiny, "run_dir=run", "resume=auto")
        assert outcome.status == 2
        assert "every checkpoint in 'run/checkpoints' is damaged (last.ckpt: it is empty; " in outcome.err
        assert len(outcome.err.splitlines()) == 1
        last.write_bytes(whole)
        last.unlink()  # a run that lost only this name goes on all the same
        outcome = invoke(folder, "train", *tiny, "resume=auto", "run_dir=run", "stop_after=6")
        assert "nothing is left to do: 'run' is at step 6 of 6" in outcome.err
    finally:
        older.write_bytes(kept)
        if not last.is_file():
            os.link(checkpoints / "step_00000006.ckpt", last)
